// Draw: a sheet of new pictures, of what is wanted or like a few of them; each opens in Edit.

import { $, ask, busy, copies, element, notice, tell, told } from "./link.js";
import * as edit from "./edit.js";

const wanted = {}; // name -> true or false
let facts, isDrawn = false, open;

function filter(name) {
  const called = name.replaceAll("_", " ");
  const button = element("button", { type: "button" });
  const paint = () => {
    const value = wanted[name] === undefined ? "" : wanted[name] ? "yes" : "no";
    button.dataset.value = value;
    button.textContent = called;
    button.setAttribute("aria-label", `${called}: ${value || "either"}`);
    button.title = `${called}: ${value || "either"}`;
  };
  button.addEventListener("click", () => {
    if (wanted[name] === undefined) {
      for (const other of facts.exclusive[name] ?? []) if (wanted[other]) delete wanted[other];
      wanted[name] = true;
    } else if (wanted[name]) wanted[name] = false;
    else delete wanted[name];
    $("filters").dispatchEvent(new Event("changed"));
  });
  $("filters").addEventListener("changed", paint);
  paint();
  return button;
}

function tile(one, i) {
  const picture = element("img", { src: one.picture, alt: "", width: 128, height: 128 });
  const button = element("button", { type: "button", title: "Edit it", "aria-label": `Edit picture ${i + 1}` }, picture);
  const drawing = { seed: one.seed, number: one.number, wanted: one.wanted };
  button.addEventListener("click", told(async () => {
    await edit.draw(drawing);
    open("edit");
  }));
  const choice = element("input", { type: "checkbox", title: "More like this", "aria-label": `More like picture ${i + 1}` });
  choice.drawing = drawing;
  choice.addEventListener("change", () => { $("more-like").disabled = !likes().length; });
  return element("li", {}, button, choice);
}

const likes = () => [...document.querySelectorAll("#sheet input:checked")].map((choice) => choice.drawing);

async function sheet(like = []) {
  busy("sheet-state", "drawing");
  try {
    const asked = { num: Number($("num").value), seed: Number($("sheet-seed").value), wanted: like.length ? {} : wanted, like };
    const { drawn, command, remarks } = await ask("sheet", asked);
    $("sheet").replaceChildren(...drawn.map(tile));
    $("more-like").disabled = true;
    $("sheet-remarks").textContent = remarks.join(" ");
    tell("sheet-command", command);
    isDrawn = true;
    notice(null);
  } finally {
    busy("sheet-state", "");
  }
}

export const shown = told(async () => { if (!isDrawn) await sheet(); });

export function start(given, show) {
  facts = given;
  open = show;
  $("filters").append(...facts.groups.flat().map(filter));
  copies("sheet-copy", "sheet-command");
  $("draw-form").addEventListener("submit", told(async (event) => {
    event.preventDefault();
    await sheet();
  }));
  $("draw-next").addEventListener("click", told(async () => {
    $("sheet-seed").value = Number($("sheet-seed").value) + 1;
    await sheet();
  }));
  $("more-like").addEventListener("click", told(() => sheet(likes())));
}
