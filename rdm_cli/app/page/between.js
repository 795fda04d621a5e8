// Between two or three pictures: a slider or a triangle, a strip and an animation.

import { $, ask, busy, chosen, copies, download, element, send, tell, told } from "./link.js";
import * as edit from "./edit.js";

const CORNERS = [[100, 0], [0, 173.2], [200, 173.2]];
const ends = [null, null, null];
let weights = [1, 1, 1], facts, seed = 0;

const taken = () => ends.filter((end) => end !== null);
const keys = () => taken().map((end) => end.key);

function end(i) {
  const called = "ABC"[i];
  const face = element("div", { className: "face" }, called);
  const put = (opened) => {
    ends[i] = opened;
    face.replaceChildren(opened ? element("img", { src: opened.picture, alt: `${called}: ${opened.name}` }) : called);
    name.textContent = name.title = opened ? opened.name : i === 2 ? "a third, if you like" : "";
    clear.hidden = !opened;
    change();
  };
  const button = (text, label, action) => {
    const made = element("button", { textContent: text, title: label, "aria-label": `${called}: ${label}` });
    made.addEventListener("click", told(action));
    return made;
  };
  const clear = button("×", "Take it out", () => put(null));
  clear.hidden = true;
  const name = element("span", { className: "called", textContent: i === 2 ? "a third, if you like" : "" });
  const drawing = button("Draw", "Draw one", async () => put(await ask("draw", { seed: seed++, number: 0 })));
  drawing.hidden = !facts.draws;
  const made = element("div", { className: "end" }, face, name, element("div", { className: "bar" },
    button("Open…", "Open a picture or a code", async () => {
      const file = await chosen();
      if (file) put(await send(file));
    }),
    button("Edited", "The picture that is edited", async () => put(await ask("continue", edit.current()))),
    drawing, clear));
  made.addEventListener("drop", told(async (event) => {
    const [file] = event.dataTransfer.files;
    if (!file) return;
    put(await send(file));
  }));
  return made;
}

const change = told(async () => {
  const several = taken();
  $("mix-two").hidden = several.length === 3;
  $("mix-three").hidden = several.length !== 3;
  for (const id of ["save-strip", "save-animation"]) $(id).disabled = several.length < 2;
  if (several.length < 2) {
    tell("mix-command", "");
    $("mixed").removeAttribute("src");
    $("mixed-label").textContent = "";
    return;
  }
  tell("mix-command", (await ask("way", { keys: keys(), frames: frames() })).command);
  mix();
});

const frames = () => Math.min(64, Math.max(2, Math.round(Number($("frames").value) || 9)));

// One picture at a time: what was passed meanwhile is left out.
let waiting = false, isAsking = false;

function mix() {
  paint();
  waiting = true;
  if (!isAsking) pump();
}

const pump = told(async () => {
  isAsking = true;
  busy("mixed-state", "mixing");
  try {
    while (waiting) {
      waiting = false;
      const asked = keys();
      if (asked.length < 2) break;
      const { picture } = await ask("mix", { keys: asked, weights: weightsNow() });
      if (keys().join() === asked.join()) $("mixed").src = picture;
    }
  } finally {
    isAsking = false;
    busy("mixed-state", "");
  }
});

function weightsNow() {
  const alpha = Number($("alpha").value);
  return taken().length === 3 ? weights : [1 - alpha, alpha];
}

function paint() {
  const now = weightsNow(), total = now.reduce((sum, one) => sum + one, 0);
  const letters = [..."ABC"].filter((_, i) => ends[i]);
  const text = now.map((one, i) => `${Math.round(100 * one / total)} % ${letters[i]}`).join(", ");
  $("mixed-label").textContent = text;
  $("alpha").style.setProperty("--to", `${100 * $("alpha").value}%`);
  $("alpha").setAttribute("aria-valuetext", text);
  $("triangle").setAttribute("aria-valuetext", text);
  $("triangle").setAttribute("aria-valuenow", Math.round(100 * weights[0] / total));
  const at = [0, 1].map((axis) => weights.reduce((sum, one, i) => sum + one * CORNERS[i][axis], 0)
    / weights.reduce((sum, one) => sum + one, 0));
  $("handle").setAttribute("cx", at[0]);
  $("handle").setAttribute("cy", at[1]);
}

// x, y in the triangle's own units as weights of the corners; outside it, the nearest that are none below 0.
function moveTo(x, y) {
  const c = 1 - Math.max(0, Math.min(1, y / 173.2));
  const right = (x - 100 * c) / 200;
  const b = Math.max(0, 1 - c - Math.max(0, right));
  weights = [c, b, Math.max(0, 1 - c - b)];
  mix();
}

export function start(given) {
  facts = given;
  $("ends").append(...[0, 1, 2].map(end));
  copies("mix-copy", "mix-command");
  $("alpha").addEventListener("input", mix);
  $("frames").addEventListener("change", change);
  const triangle = $("triangle");
  const follow = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(triangle.getScreenCTM().inverse());
    moveTo(at.x, at.y);
  };
  triangle.addEventListener("pointerdown", (event) => {
    triangle.setPointerCapture(event.pointerId);
    follow(event);
  });
  triangle.addEventListener("pointermove", (event) => { if (triangle.hasPointerCapture(event.pointerId)) follow(event); });
  triangle.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [0, -8], ArrowDown: [0, 8], ArrowLeft: [-8, 0], ArrowRight: [8, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    moveTo(Number($("handle").getAttribute("cx")) + step[0], Number($("handle").getAttribute("cy")) + step[1]);
  });
  const save = (what) => told(async () => {
    busy("mixed-state", "writing");
    try {
      await download("export", { keys: keys(), frames: frames(), what });
    } finally {
      busy("mixed-state", "");
    }
  });
  $("save-strip").addEventListener("click", save("strip"));
  $("save-animation").addEventListener("click", save("animation"));
}
