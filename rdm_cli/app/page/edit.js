// Edit: one picture, its sliders and switches, and the command that does the same.

import { $, ask, busy, chosen, copies, download, element, send, tell, told } from "./link.js";

const REST_MS = 140; // a slider that has not moved for so long rests
const STEP = 0.02, FARTHEST = 1;
const AS_IT_IS = () => ({ wanted: {}, keep: null, seed: 0, like: null, scales: {} });
const SAYS = {
  slide: "Each slider moves the code along one attribute. A small bar is what the classifier reads.",
  set: "An edit goes as far as it must, and the picture is read again. What is to be kept stays as it was.",
};

let facts, source = null, edit = AS_IT_IS();
let past = [AS_IT_IS()], future = [], turn = 0;
const likes = new Map(); // key -> {name, picture}

// What is shown.

function shownNumber(value) {
  return value ? `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}` : "0";
}

function paintSlider(slider) {
  const at = 50 + 50 * slider.value / FARTHEST;
  slider.style.setProperty("--from", `${Math.min(50, at)}%`);
  slider.style.setProperty("--to", `${Math.max(50, at)}%`);
}

const words = (name) => name.replaceAll("_", " ");

const reading = (name) => element("span", { className: "reading", role: "img", "data-reading": name });

function slideRow(name) {
  const slider = element("input", {
    type: "range", min: -FARTHEST, max: FARTHEST, step: STEP, value: 0, id: `slide-${name}`,
  });
  const value = element("output", { className: "value", htmlFor: slider.id, textContent: "0" });
  slider.addEventListener("input", () => {
    setScale(name, Number(slider.value));
    preview();
  });
  let isTyped = false;
  slider.addEventListener("change", () => commit(isTyped ? name : null));
  const back = () => { setScale(name, 0); preview(); commit(); };
  slider.addEventListener("pointerdown", () => { isTyped = false; });
  slider.addEventListener("keydown", (event) => {
    isTyped = true;
    if (event.key === "0") back();
  });
  slider.addEventListener("dblclick", back);
  const label = element("label", { className: "called", htmlFor: slider.id, title: facts.doubts[name] ?? words(name) }, words(name));
  return element("div", { className: "slide row", "data-name": name }, label, reading(name), slider, value);
}

function setRow(name) {
  const choice = element("div", { className: "segments small", role: "radiogroup", "aria-label": words(name) });
  for (const [value, text] of [["no", "no"], ["", "as is"], ["yes", "yes"]]) {
    const radio = element("input", { type: "radio", name: `set-${name}`, value });
    radio.addEventListener("change", () => { setWanted(name, value); commit(); settle(); });
    choice.append(element("label", {}, radio, element("span", {}, text)));
  }
  const tick = element("input", { type: "checkbox", checked: true, "data-keep": name });
  tick.addEventListener("change", () => {
    const ticks = [...document.querySelectorAll("[data-keep]:enabled")];
    const kept = ticks.filter((one) => one.checked).map((one) => one.dataset.keep);
    edit = { ...edit, keep: kept.length === ticks.length ? null : kept };
    commit();
    settle();
  });
  const called = element("span", { className: "called", title: facts.doubts[name] ?? words(name) }, words(name));
  const keep = element("label", { className: "keep", title: "It is to stay as it is" }, tick, "keep");
  keep.querySelector("input").setAttribute("aria-label", `keep ${words(name)}`);
  return element("div", { className: "set row", "data-name": name }, called, reading(name), choice, keep);
}

function buildRows() {
  const mode = document.querySelector('[name="mode"]:checked').value;
  $("rows").replaceChildren(...facts.groups.map((group) => {
    const label = group.map(words).join(", ");
    return element("div", { className: "group", role: "group", "aria-label": label }, ...group.map(mode === "slide" ? slideRow : setRow));
  }));
  $("mode-says").textContent = facts.groups.length ? SAYS[mode] : "This bundle has no attributes.";
  $("set-more").hidden = mode !== "set" || !facts.groups.length;
  refresh();
}

function refresh() {
  for (const row of document.querySelectorAll(".slide.row")) {
    const value = edit.scales[row.dataset.name] ?? 0;
    const slider = row.querySelector("input");
    slider.value = value;
    paintSlider(slider);
    row.querySelector("output").textContent = shownNumber(value);
    row.classList.toggle("moved", value !== 0);
  }
  const ruledOut = Object.keys(edit.wanted).filter((name) => edit.wanted[name]).flatMap((name) => facts.exclusive[name] ?? []);
  for (const row of document.querySelectorAll(".set.row")) {
    const name = row.dataset.name, wanted = edit.wanted[name];
    const value = wanted === undefined ? "" : wanted ? "yes" : "no";
    row.querySelector(`input[value="${value}"]`).checked = true;
    row.classList.toggle("moved", value !== "");
    const tick = row.querySelector("[data-keep]");
    tick.checked = edit.keep === null || edit.keep.includes(name);
    tick.disabled = !Object.keys(edit.wanted).length || value !== "" || ruledOut.includes(name);
  }
  $("seed").value = edit.seed;
  const like = likes.get(edit.like);
  $("like").hidden = !like;
  if (like) {
    $("like-picture").src = like.picture;
    $("like-name").textContent = like.name;
  }
  $("undo").disabled = past.length < 2;
  $("redo").disabled = !future.length;
  $("reset").disabled = same(edit, AS_IT_IS());
}

function paint(seen, state) {
  $("edited").src = seen.picture;
  for (const bar of document.querySelectorAll("[data-reading]")) {
    const p = seen.readings[bar.dataset.reading] ?? 0;
    bar.style.setProperty("--p", p);
    bar.title = `${words(bar.dataset.reading)}: ${Math.round(100 * p)} %`;
    bar.setAttribute("aria-label", bar.title);
  }
  busy("state", state);
  if (!$("differs").hidden) difference();
}

async function difference() {
  const both = [$("original"), $("edited")];
  await Promise.all(both.map((image) => image.decode()));
  const canvas = $("differs"), { naturalWidth: width, naturalHeight: height } = $("edited");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [before, after] = both.map((image) => {
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  });
  for (let i = 0; i < after.data.length; i++) {
    if (i % 4 !== 3) after.data[i] = 4 * Math.abs(after.data[i] - before.data[i]);
  }
  context.putImageData(after, 0, 0);
}

export function toggleDifference() {
  const on = $("differs").hidden;
  $("differs").hidden = !on;
  $("edited").hidden = on;
  $("difference").setAttribute("aria-pressed", on);
  $("edited-label").textContent = on ? "Difference, four times" : "Edited";
  if (on) difference();
}

// What is asked for.

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function setScale(name, value) {
  const { [name]: _, ...others } = edit.scales;
  edit = { ...edit, scales: value ? { ...others, [name]: value } : others };
  refresh();
}

function setWanted(name, value) {
  const { [name]: _, ...others } = edit.wanted;
  if (value === "yes") for (const other of facts.exclusive[name] ?? []) if (others[other]) delete others[other];
  edit = { ...edit, wanted: value ? { ...others, [name]: value === "yes" } : others };
  if (!Object.keys(edit.wanted).length) edit = { ...edit, keep: null, seed: 0, like: null };
  refresh();
}

// One step to undo; what is typed at one slider, key by key, is one.
let typedAt = null;

function commit(typed = null) {
  if (!same(past.at(-1), edit)) {
    if (typed !== null && typed === typedAt) past.pop();
    past.push(edit);
    future = [];
    typedAt = typed;
  }
  refresh();
}

function go(to) {
  edit = to;
  typedAt = null;
  refresh();
  settle();
}

export function undo() {
  if (past.length < 2) return;
  future.push(past.pop());
  go(past.at(-1));
}

export function redo() {
  if (!future.length) return;
  past.push(future.pop());
  go(past.at(-1));
}

// A preview at a time: what the slider passed meanwhile is left out.
let waiting = null, isAsking = false, resting = null;

function preview() {
  if (!source) return;
  waiting = { key: source.key, edit, turn: ++turn };
  busy("state", "preview");
  clearTimeout(resting);
  if (!isAsking) pump();
}

const pump = told(async () => {
  isAsking = true;
  try {
    while (waiting) {
      const asked = waiting;
      waiting = null;
      const seen = await ask("preview", asked);
      if (source?.key !== asked.key) return;
      paint(seen, "preview");
      $("edited").dataset.turn = asked.turn;
    }
  } finally {
    isAsking = false;
  }
  clearTimeout(resting);
  resting = setTimeout(settle, REST_MS);
});

const settle = told(async () => {
  if (!source) return;
  clearTimeout(resting);
  const asked = { key: source.key, edit, turn: ++turn };
  busy("state", Object.keys(edit.wanted).length ? "editing and reading it" : "settling");
  try {
    const seen = await ask("settle", asked);
    if (asked.turn !== turn) return;
    paint(seen, "");
    $("edited").dataset.settled = asked.turn;
    $("remarks").textContent = seen.remarks.join(" ");
    tell("command", seen.command);
  } catch (error) {
    if (error.status === 409) return;
    if (asked.turn === turn) busy("state", "");
    throw error;
  }
});

// What is opened and saved.

export function take(opened, file = null) {
  source = opened;
  edit = AS_IT_IS();
  past = [edit];
  future = [];
  typedAt = waiting = null;
  $("original").src = $("edited").src = opened.picture;
  $("original").alt = `The original, ${opened.name}`;
  $("edited").alt = `${opened.name}, edited`;
  $("source-name").textContent = $("source-name").title = opened.name;
  tell("command", "");
  $("remarks").textContent = (opened.remarks ?? []).join(" ");
  for (const button of document.querySelectorAll("#files button")) {
    button.setAttribute("aria-current", Number(button.dataset.number) === file);
  }
  refresh();
  const remarks = $("remarks").textContent;
  settle().then(() => { if (remarks && source === opened) $("remarks").textContent ||= remarks; });
}

export const current = () => ({ key: source.key, edit });
export const openFile = async (file) => take(await send(file));
export const draw = async (drawing) => take(await ask("draw", drawing));
export const point = async (number) => take(await ask("explore", { number }));
export const chooseFile = told(async () => {
  const file = await chosen();
  if (file) await openFile(file);
});
export const save = told(() => download("save", { key: source.key, edit, what: "picture" }));
const pick = async (number) => take(await ask("pick", { number }), number);

function listFiles() {
  $("files").hidden = facts.files.length < 2;
  if ($("files").hidden) return;
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(target);
      ask("thumbnail", { number: Number(target.dataset.number) })
        .then(({ picture }) => { target.querySelector("img").src = picture; })
        .catch(() => { target.disabled = true; });
    }
  }, { root: $("files") });
  for (const [number, name] of facts.files.entries()) {
    const button = element("button", { title: name, "aria-label": name, "data-number": number },
      element("img", { alt: "", width: 56, height: 56 }));
    button.addEventListener("click", told(() => pick(number)));
    $("files").append(element("li", {}, button));
    seen.observe(button);
  }
}

export async function start(given) {
  facts = given;
  for (const radio of document.querySelectorAll('[name="mode"]')) radio.addEventListener("change", buildRows);
  $("open").addEventListener("click", chooseFile);
  $("draw-one").hidden = !facts.draws;
  $("draw-one").addEventListener("submit", told(async (event) => {
    event.preventDefault();
    await draw({ seed: Number($("draw-seed").value) });
    $("draw-seed").value = Number($("draw-seed").value) + 1;
  }));
  $("difference").addEventListener("click", toggleDifference);
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("reset").addEventListener("click", () => { edit = AS_IT_IS(); commit(); settle(); });
  $("seed").addEventListener("change", () => {
    edit = { ...edit, seed: Math.max(0, Math.round(Number($("seed").value) || 0)) };
    commit();
    settle();
  });
  $("another").addEventListener("click", () => { edit = { ...edit, seed: edit.seed + 1 }; commit(); settle(); });
  $("borrow").addEventListener("click", told(async () => {
    const file = await chosen();
    if (!file) return;
    const like = await send(file);
    likes.set(like.key, like);
    edit = { ...edit, like: like.key };
    commit();
    await settle();
  }));
  $("like-off").addEventListener("click", () => { edit = { ...edit, like: null }; commit(); settle(); });
  copies("copy", "command");
  $("save").addEventListener("click", save);
  $("save-code").addEventListener("click", told(() => download("save", { key: source.key, edit, what: "code" })));
  $("continue").addEventListener("click", told(async () => take(await ask("continue", current()))));
  buildRows();
  listFiles();
  if (facts.files.length) await pick(0);
  else if (facts.draws) { await draw({ seed: 0 }); $("draw-seed").value = 1; }
}
