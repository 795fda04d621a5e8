// The frame: tabs, keys, files that are dropped; and the start.

import { $, ask, notice, told } from "./link.js";
import * as between from "./between.js";
import * as draw from "./draw.js";
import * as edit from "./edit.js";
import * as explore from "./explore.js";

const views = ["edit", "between", "draw", "explore"];
const shown = { draw: draw.shown, explore: explore.shown };

export function show(name) {
  for (const other of views) {
    $(other).hidden = other !== name;
    $(`tab-${other}`).setAttribute("aria-selected", other === name);
    $(`tab-${other}`).tabIndex = other === name ? 0 : -1;
  }
  shown[name]?.();
}

for (const name of views) {
  const tab = $(`tab-${name}`);
  tab.addEventListener("click", () => show(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const there = views.filter((other) => !$(`tab-${other}`).hidden);
    const next = there[(there.indexOf(name) + step + there.length) % there.length];
    show(next);
    $(`tab-${next}`).focus();
  });
}

// Files are dropped anywhere.
let depth = 0;
const over = (change) => {
  depth = Math.max(0, depth + change);
  $("drop").hidden = depth === 0;
};
addEventListener("dragenter", (event) => { event.preventDefault(); over(1); });
addEventListener("dragleave", () => over(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", told(async (event) => {
  event.preventDefault();
  over(-depth);
  const [file] = event.dataTransfer.files;
  if (!file || event.target.closest?.(".end")) return; // which takes it itself
  show("edit");
  await edit.openFile(file);
}));

// Keys.
$("help").addEventListener("click", () => $("keys").showModal());
addEventListener("keydown", (event) => {
  const typing = event.target.matches('input[type="number"], input[type="text"], select');
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && !$("edit").hidden) {
    const action = { z: event.shiftKey ? edit.redo : edit.undo, y: edit.redo, s: edit.save }[key];
    if (action && !(typing && key !== "s")) {
      event.preventDefault();
      action();
    }
    return;
  }
  if (typing || event.altKey || $("keys").open) return;
  if (event.key === "?") $("keys").showModal();
  else if (!$("edit").hidden) ({ d: edit.toggleDifference, o: edit.chooseFile })[key]?.();
});

try {
  const facts = await ask("start");
  $("bundle").textContent = `${facts.bundle}, ${facts.size} px`;
  document.title = `rdm: ${facts.bundle}`;
  between.start(facts);
  draw.start(facts, show);
  explore.start(facts, show);
  $("tab-draw").hidden = !facts.draws;
  $("tab-explore").hidden = !facts.explores;
  await edit.start(facts);
  if (facts.explores && !facts.files.length) show("explore");
} catch (error) {
  notice(error);
}
