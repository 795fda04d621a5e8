"use strict";
// The map of a collection: points on a canvas, which is panned, zoomed, asked by the pointer and by keys.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const xs = new Uint16Array(bytes(data.x).buffer), ys = new Uint16Array(bytes(data.y).buffer);
const num = xs.length, SIDE = 65535, LEVELS = 24, CELLS = 128;
const values = data.attributes.map((one) => bytes(one.values));
const shown = new Int32Array(num).fill(-1);
new Uint32Array(bytes(data.pictured).buffer).forEach((point, i) => { shown[point] = i; });

const canvas = $("map"), tip = $("tip"), context = canvas.getContext("2d", { alpha: false });
let width = 1, height = 1, ratio = 1;
let scale = 1, left = 0, top_ = 0;        // a point lies at left + scale * x, top + scale * (SIDE - y), in CSS px
let colourBy = data.attributes.length ? 0 : -1, matches = null, chosen = -1, hovered = -1;
let order = new Uint32Array(num), ends = [];  // the points by level of colour, and where each level ends
let palette = [], dimmed = [], ink = "", ground = "";

const px = (i) => left + scale * xs[i], py = (i) => top_ + scale * (SIDE - ys[i]);

// Points by cells of the plane, to find who is near the pointer.
const cellOf = (i) => (ys[i] * CELLS >> 16) * CELLS + (xs[i] * CELLS >> 16);
const cellStarts = new Uint32Array(CELLS * CELLS + 1), inCells = new Uint32Array(num);
for (let i = 0; i < num; i++) cellStarts[cellOf(i) + 1]++;
for (let c = 0; c < CELLS * CELLS; c++) cellStarts[c + 1] += cellStarts[c];
const filled = cellStarts.slice();
for (let i = 0; i < num; i++) inCells[filled[cellOf(i)]++] = i;

const value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const parts = (name) => value(name).match(/\w\w/g).map((pair) => parseInt(pair, 16));
const mixed = (a, b, share) => a.map((c, k) => Math.round(c + share * (b[k] - c)));
function readColours() {
  const stops = ["--low", "--middle", "--high"].map(parts);
  palette = Array.from({ length: LEVELS }, (_, level) => {
    const at = 2 * level / (LEVELS - 1), first = Math.min(1, Math.floor(at));
    return mixed(stops[first], stops[first + 1], at - first);
  });
  [ink, ground] = [value("--ink"), value("--ground")];
  dimmed = mixed(parts("--ground"), parts("--ink"), 0.1);
  $("ramp").style.background = `linear-gradient(90deg, ${palette.map((colour) => `rgb(${colour})`).join(",")})`;
}

function sortByColour() {
  const of = colourBy < 0 ? null : values[colourBy];
  const level = (i) => matches && !matches[i] ? 0 : 1 + (of ? of[i] * LEVELS >> 8 : LEVELS - 1);
  const counts = new Uint32Array(LEVELS + 2);
  for (let i = 0; i < num; i++) counts[level(i) + 1]++;
  for (let k = 0; k <= LEVELS; k++) counts[k + 1] += counts[k];
  ends = Array.from(counts.subarray(1));
  const at = counts.slice();
  for (let i = 0; i < num; i++) order[at[level(i)]++] = i;
  $("legend").hidden = colourBy < 0;
  if (colourBy >= 0) $("ramp").setAttribute("aria-label", `colours: probability of ${data.attributes[colourBy].name}, 0 to 1`);
}

// One of the sides of the plane is filled, and the points lie in the middle of the other.
const extent = (of) => of.reduce((most, v) => Math.max(most, Math.abs(2 * v - SIDE)), 1);
const wide = extent(xs), high = extent(ys);
const fitted = () => Math.min((width - 48) / wide, (height - 48) / high);
const radius = () => Math.max(1, Math.min(6, 0.2 * Math.sqrt(width * height / num * scale / fitted())));

function paintDiscs(r) {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);
  for (let level = 0, k = 0; level <= LEVELS; level++) {
    context.fillStyle = `rgb(${level ? palette[level - 1] : dimmed})`;
    context.globalAlpha = level ? 0.85 : 1;
    context.beginPath();
    for (; k < ends[level]; k++) {
      const i = order[k], x = px(i), y = py(i);
      if (x < -r || y < -r || x > width + r || y > height + r) continue;
      context.moveTo(x + r, y);
      context.arc(x, y, r, 0, 6.2832);
    }
    context.fill();
  }
  context.globalAlpha = 1;
}

// Small discs of many points, pixel by pixel: a browser without a GPU takes ten times as long for as many paths.
let image = null;
function paintPixels(r) {
  const [across, down] = [canvas.width, canvas.height], reach = Math.round(r * ratio), disc = [];
  if (!image || image.width !== across || image.height !== down) image = context.createImageData(across, down);
  const pixels = new Uint32Array(image.data.buffer);
  const packed = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) if (dx * dx + dy * dy <= reach * reach + 1) disc.push(dy * across + dx);
  }
  pixels.fill(packed(parts("--ground")));
  for (let level = 0, k = 0; level <= LEVELS; level++) {
    const colour = packed(level ? palette[level - 1] : dimmed);
    for (; k < ends[level]; k++) {
      const i = order[k], x = Math.round(ratio * px(i)), y = Math.round(ratio * py(i));
      if (x < reach || y < reach || x >= across - reach || y >= down - reach) continue;
      const at = y * across + x;
      for (let n = 0; n < disc.length; n++) pixels[at + disc[n]] = colour;
    }
  }
  context.putImageData(image, 0, 0);
}

let asked = false;
function draw() {
  if (!asked) { asked = true; requestAnimationFrame(paint); }
}
function paint() {
  asked = false;
  const r = radius(), start = performance.now();
  if (num > 5000 && r < 3) paintPixels(r);
  else paintDiscs(r);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const [i, line] of [[hovered, 1.5], [chosen, 2.5]]) {
    if (i < 0) continue;
    context.beginPath();
    context.arc(px(i), py(i), r + 3, 0, 6.2832);
    context.lineWidth = line;
    context.strokeStyle = ink;
    context.stroke();
  }
  canvas.dataset.milliseconds = performance.now() - start;
}

function fit() {
  scale = fitted();
  left = (width - scale * SIDE) / 2;
  top_ = (height - scale * SIDE) / 2;
  draw();
}
function zoom(factor, x = width / 2, y = height / 2) {
  const next = Math.max(fitted() / 2, Math.min(fitted() * 400, scale * factor));
  left = x - (x - left) * next / scale;
  top_ = y - (y - top_) * next / scale;
  scale = next;
  draw();
}

function nearest(x, y, reach) {
  let best = -1, least = reach * reach;
  const cell = (v) => Math.max(0, Math.min(CELLS - 1, Math.floor(v * CELLS / 65536)));
  const dx = [cell((x - reach - left) / scale), cell((x + reach - left) / scale)];
  const dy = [cell(SIDE - (y + reach - top_) / scale), cell(SIDE - (y - reach - top_) / scale)];
  for (let row = dy[0]; row <= dy[1]; row++) {
    for (let k = cellStarts[row * CELLS + dx[0]]; k < cellStarts[row * CELLS + dx[1] + 1]; k++) {
      const i = inCells[k], d = (px(i) - x) ** 2 + (py(i) - y) ** 2;
      if (d < least && (!matches || matches[i])) { least = d; best = i; }
    }
  }
  return best;
}

const percent = (value) => `${Math.round(100 * value / 255)} %`;
function picture(into, i) {
  into.hidden = shown[i] < 0;
  if (shown[i] >= 0) into.src = `data:image/webp;base64,${data.pictures[shown[i]]}`;
  else into.removeAttribute("src");
}

function hover(i) {
  if (i === hovered) return;
  hovered = i;
  tip.hidden = i < 0;
  if (i >= 0) {
    picture($("tip-picture"), i);
    $("tip-name").textContent = data.names[i];
    $("tip-value").textContent = colourBy < 0 ? "" : `${data.attributes[colourBy].name} ${percent(values[colourBy][i])}`;
    const box = tip.getBoundingClientRect(), x = px(i), y = py(i);
    tip.style.left = `${Math.max(4, x + 14 + box.width > width ? x - 14 - box.width : x + 14)}px`;
    tip.style.top = `${Math.max(4, Math.min(height - box.height - 4, y - box.height / 2))}px`;
  }
  draw();
}

function choose(i, follow) {
  chosen = i;
  $("card").hidden = i < 0;
  $("nothing").hidden = i >= 0;
  if (i >= 0) {
    picture($("picture"), i);
    $("picture").alt = data.names[i];
    $("no-picture").hidden = shown[i] >= 0;
    $("name").textContent = data.names[i];
    const ranked = values.map((of, k) => [of[i], data.attributes[k].name]).sort((a, b) => b[0] - a[0]);
    const rows = ranked.filter(([value]) => percent(value) !== "0 %").map(([value, name]) => {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.scope = "row";
      head.textContent = name;
      cell.textContent = percent(value);
      cell.style.setProperty("--share", `${100 * value / 255}%`);
      row.append(head, cell);
      return row;
    });
    $("values").replaceChildren(...rows);
    $("others").textContent = rows.length < ranked.length ? `${rows.length ? "All others" : "All"}: below 1 %` : "";
    const has = ranked.filter(([value]) => value > 127).map(([, name]) => name).join(", ");
    $("said").textContent = `${data.names[i]}${values.length ? `: ${has || "none of the attributes"}` : ""}`;
    if (follow && (px(i) < 20 || py(i) < 20 || px(i) > width - 20 || py(i) > height - 20)) {
      left += width / 2 - px(i);
      top_ += height / 2 - py(i);
    }
  }
  draw();
}

function step(dx, dy) {
  if (chosen < 0) return choose(nearest(width / 2, height / 2, width + height), true);
  let best = -1, least = Infinity;
  for (let i = 0; i < num; i++) {
    if (i === chosen || (matches && !matches[i])) continue;
    const x = px(i) - px(chosen), y = py(i) - py(chosen), along = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
    if (along > 0 && aside <= along && along + 2 * aside < least) { least = along + 2 * aside; best = i; }
  }
  if (best >= 0) choose(best, true);
}

function find(text) {
  const wanted = text.trim().toLowerCase();
  matches = wanted ? Uint8Array.from(data.names, (name) => name.toLowerCase().includes(wanted)) : null;
  const count = matches ? matches.reduce((a, b) => a + b, 0) : num;
  $("found").textContent = matches ? `${count} found` : "";
  sortByColour();
  draw();
}

const pointers = new Map();
let moved = 0, spread = 0;
const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, spot(event));
  moved = pointers.size > 1 ? 99 : 0;
  spread = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = spot(event), before = pointers.get(event.pointerId);
  if (!before) return hover(nearest(x, y, 14));
  pointers.set(event.pointerId, [x, y]);
  if (pointers.size === 2) {
    const [[ax, ay], [bx, by]] = [...pointers.values()], now = Math.hypot(ax - bx, ay - by);
    if (spread) zoom(now / spread, (ax + bx) / 2, (ay + by) / 2);
    spread = now;
  } else {
    left += x - before[0];
    top_ += y - before[1];
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    if (moved > 3) hover(-1);
    draw();
  }
});
const lift = (event) => {
  const known = pointers.delete(event.pointerId);
  spread = 0;
  if (known && event.type === "pointerup" && moved <= 3) choose(nearest(...spot(event), event.pointerType === "touch" ? 24 : 14), false);
};
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
canvas.addEventListener("pointerleave", () => hover(-1));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...spot(event));
  hover(-1);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (way && event.shiftKey) { left -= 60 * way[0]; top_ -= 60 * way[1]; draw(); }
  else if (way) step(...way);
  else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") fit();
  else if (event.key === "Escape") choose(-1, false);
  else return;
  event.preventDefault();
});
$("closer").addEventListener("click", () => zoom(1.5));
$("wider").addEventListener("click", () => zoom(1 / 1.5));
$("whole").addEventListener("click", fit);
$("find").addEventListener("input", (event) => find(event.target.value));
$("find").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !matches) return;
  const first = matches.indexOf(1);
  if (first >= 0) choose(first, true);
});

data.attributes.forEach((one, k) => $("colour").append(new Option(one.name, k)));
if (!data.attributes.length) $("colouring").hidden = true;
$("colour").addEventListener("change", (event) => { colourBy = Number(event.target.value); sortByColour(); draw(); });

const resize = () => {
  const box = canvas.getBoundingClientRect(), first = width === 1;
  const middle = [(width / 2 - left) / scale, (height / 2 - top_) / scale];
  [width, height, ratio] = [box.width, box.height, devicePixelRatio || 1];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  if (first) return fit();
  left = width / 2 - scale * middle[0];
  top_ = height / 2 - scale * middle[1];
  paint();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
readColours();
sortByColour();
new ResizeObserver(resize).observe(canvas);
