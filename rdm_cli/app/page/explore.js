// Explore: the codes as points; hover shows one, click edits it, a line drawn around some chooses them.

import { $, ask, busy, download, keep, told } from "./link.js";
import * as edit from "./edit.js";

const SIDE = 65535, LEVELS = 12, NEAR_PX = 14;
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const canvas = $("cloud"), context = canvas.getContext("2d");
let xs = null, ys, names, values = {}, open;
let width = 1, height = 1, scale = 1, left = 0, above = 0;
let at = -1, isByKeys = false, chosen = new Set(), lasso = null, ink = [];

const px = (i) => left + scale * xs[i], py = (i) => above + scale * (SIDE - ys[i]);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const parts = (name) => style(name).match(/\w\w/g).map((pair) => parseInt(pair, 16));

function colours() {
  const [low, high] = [parts("--low"), parts("--high")];
  ink = Array.from({ length: LEVELS }, (_, level) => low.map((c, k) => Math.round(c + level / (LEVELS - 1) * (high[k] - c))));
}

let asked = false;
function draw() {
  if (asked || xs === null) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; paint(); });
}

function paint() {
  const ratio = devicePixelRatio || 1, of = values[$("colour").value];
  const r = Math.max(1.5, Math.min(6, 0.25 * Math.sqrt(width * height / xs.length)));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const dot = (i, radius) => { context.moveTo(px(i) + radius, py(i)); context.arc(px(i), py(i), radius, 0, 7); };
  for (let level = 0; level < LEVELS; level++) {
    context.beginPath();
    for (let i = 0; i < xs.length; i++) if ((of ? of[i] * LEVELS >> 8 : LEVELS >> 1) === level) dot(i, r);
    context.fillStyle = of ? `rgb(${ink[level]})` : style("--mark");
    context.fill();
  }
  context.strokeStyle = context.fillStyle = style("--ink");
  context.lineWidth = 1.5;
  context.beginPath();
  for (const i of chosen) dot(i, r + 1.5);
  context.stroke();
  if (at >= 0) {
    context.lineWidth = 2.5;
    context.beginPath();
    dot(at, r + 3.5);
    context.stroke();
  }
  if (lasso) {
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    for (const [x, y] of lasso) context.lineTo(x, y);
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }
}

function fit() {
  scale = Math.min(width - 40, height - 40) / SIDE;
  left = (width - scale * SIDE) / 2;
  above = (height - scale * SIDE) / 2;
  draw();
}

function zoom(factor, x = width / 2, y = height / 2) {
  left = x - (x - left) * factor;
  above = y - (y - above) * factor;
  scale *= factor;
  draw();
}

function nearest(x, y) {
  let best = -1, least = NEAR_PX ** 2;
  for (let i = 0; i < xs.length; i++) {
    const d = (px(i) - x) ** 2 + (py(i) - y) ** 2;
    if (d < least) { least = d; best = i; }
  }
  return best;
}

// The picture of a point, one at a time: what the pointer passed meanwhile is left out.
const pictures = new Map();
let wanted = -1, isAsking = false;

function look(i) {
  if (i === at) return;
  at = wanted = i;
  $("tip").hidden = i < 0;
  if (i >= 0) {
    $("tip-name").textContent = names[i];
    show(i);
    const x = px(i) + 16 + 150 > width ? px(i) - 16 - 150 : px(i) + 16;
    $("tip").style.left = `${Math.max(4, x)}px`;
    $("tip").style.top = `${Math.max(4, Math.min(height - 190, py(i) - 80))}px`;
    if (!pictures.has(i) && !isAsking) fetchPictures();
  }
  draw();
}

function show(i) {
  if (pictures.has(i)) $("tip-picture").src = pictures.get(i);
  else $("tip-picture").removeAttribute("src");
}

const fetchPictures = told(async () => {
  isAsking = true;
  try {
    while (wanted >= 0 && !pictures.has(wanted)) {
      const i = wanted;
      const { picture } = await ask("point", { number: i });
      if (pictures.size > 500) pictures.clear();
      pictures.set(i, picture);
      if (at === i) show(i);
    }
  } finally {
    isAsking = false;
  }
});

const take = told(async (i) => {
  busy("cloud-state", "opening");
  try {
    await edit.point(i);
  } finally {
    busy("cloud-state", "");
  }
  open("edit");
});

function choose(points) {
  chosen = new Set(points);
  $("save-table").disabled = !chosen.size;
  $("learn-go").disabled = chosen.size < 2 || chosen.size > names.length - 2;
  $("save-table").textContent = chosen.size ? `Save table of ${chosen.size}` : "Save table";
  draw();
}

// These against the rest, as an attribute of their own.
const learn = told(async () => {
  const name = $("learn-name").value;
  busy("cloud-state", "learning");
  try {
    const { told: said, file } = await ask("learn", { numbers: [...chosen], name });
    keep(`${name}.safetensors`, new Blob([bytes(file)]));
    $("learned").textContent = `${said}. To use it: rdm attributes import ${name}.safetensors -o my-bundle`;
  } finally {
    busy("cloud-state", "");
  }
});

function inside(x, y, line) {
  let is = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [ax, ay] = line[i], [bx, by] = line[j];
    if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) is = !is;
  }
  return is;
}

function step(dx, dy) {
  isByKeys = true;
  if (at < 0) return look(nearest(width / 2, height / 2) < 0 ? 0 : nearest(width / 2, height / 2));
  let best = -1, least = Infinity;
  for (let i = 0; i < xs.length; i++) {
    const x = px(i) - px(at), y = py(i) - py(at), along = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
    if (i !== at && along > 0 && aside <= along && along + 2 * aside < least) { least = along + 2 * aside; best = i; }
  }
  if (best >= 0) look(best);
}

const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
let from = null;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  from = spot(event);
  lasso = event.shiftKey ? null : [from];
});
canvas.addEventListener("pointermove", (event) => {
  if (xs === null) return;
  const [x, y] = spot(event);
  isByKeys = false;
  if (from === null) return look(nearest(x, y));
  if (lasso) lasso.push([x, y]);
  else {
    left += x - from[0];
    above += y - from[1];
    from = [x, y];
  }
  if (lasso && lasso.length > 3) look(-1);
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  const line = lasso;
  from = lasso = null;
  if (!line || xs === null) return;
  const far = line.some(([x, y]) => Math.hypot(x - line[0][0], y - line[0][1]) > 6);
  if (far) choose([...xs.keys()].filter((i) => inside(px(i), py(i), line)));
  else {
    const i = nearest(...spot(event));
    if (i >= 0) take(i);
    else choose([]);
  }
});
canvas.addEventListener("pointercancel", () => { from = lasso = null; draw(); });
canvas.addEventListener("pointerleave", () => { if (from === null && !isByKeys) look(-1); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...spot(event));
  look(-1);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (xs === null || event.ctrlKey || event.metaKey || event.altKey) return;
  if (way) step(...way);
  else if (event.key === "Enter" && at >= 0) take(at);
  else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") fit();
  else if (event.key === "Escape") choose([]);
  else return;
  event.preventDefault();
});

export const shown = told(async () => {
  if (xs !== null) return;
  busy("cloud-state", "placing the codes");
  try {
    const map = await ask("map");
    ({ names } = map);
    [xs, ys] = [map.x, map.y].map((text) => new Uint16Array(bytes(text).buffer));
    values = Object.fromEntries(Object.entries(map.attributes).map(([name, text]) => [name, bytes(text)]));
    $("colour").append(new Option("all alike", ""), ...Object.keys(values).map((name) => new Option(name.replaceAll("_", " "), name)));
    $("colour").selectedIndex = Object.keys(values).length ? 1 : 0;
    $("cloud-told").textContent = [map.told, ...map.remarks ?? []].join(". ");
    canvas.setAttribute("aria-label", `${names.length} codes, as points`);
    fit();
  } finally {
    busy("cloud-state", "");
  }
});

export function start(facts, show) {
  if (!facts.explores) return;
  open = show;
  colours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours(); draw(); });
  $("colour").addEventListener("change", draw);
  $("learn").addEventListener("submit", (event) => {
    event.preventDefault();
    learn();
  });
  $("save-table").addEventListener("click", told(() => download("table", { numbers: [...chosen] })));
  new ResizeObserver(() => {
    const box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!box.width) return;
    [width, height] = [box.width, box.height];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (xs !== null) fit();
  }).observe(canvas);
}
