// Asking the server: every request carries the token of the page's address and the name of this tab.

const token = location.hash.slice(1);
const tab = crypto.randomUUID();

export class Refused extends Error {
  constructor(status, { error, hint }) {
    super(hint ? `${error} (${hint})` : error);
    this.status = status;
  }
}

async function post(verb, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(`api/${verb}`, {
      method: "POST", body, headers: { "X-Rdm-Token": token, "X-Rdm-Tab": tab, ...headers },
    });
  } catch {
    throw new Refused(0, { error: "rdm app has ended", hint: "start it again, and open the address that it prints" });
  }
  if (!answer.ok) throw new Refused(answer.status, await answer.json());
  return answer;
}

export async function ask(verb, asked = {}) {
  return (await post(verb, JSON.stringify(asked))).json();
}

export async function send(file) {
  const asked = encodeURIComponent(JSON.stringify({ name: file.name }));
  return (await post("open", file, { "X-Rdm-Asked": asked })).json();
}

export async function download(verb, asked) {
  const answer = await post(verb, JSON.stringify(asked));
  const named = /filename\*=UTF-8''(.+)$/.exec(answer.headers.get("Content-Disposition"));
  keep(decodeURIComponent(named[1]), await answer.blob());
}

// Saves a file as a browser saves a download.
export function keep(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function notice(error) {
  $("notice").textContent = error ? error.message ?? String(error) : "";
  $("notice").hidden = !error;
}

// Runs a function of an event, and says what it was refused.
export const told = (action) => async (...given) => {
  try {
    await action(...given);
    notice(null);
  } catch (error) {
    notice(error);
  }
};

// A command's text, and the button that copies it: its id is the text's, with copy for command.
export function tell(id, text) {
  $(id).textContent = text;
  $(id.replace("command", "copy")).disabled = !text;
}

export function copies(id, from) {
  $(id).addEventListener("click", told(async () => {
    await navigator.clipboard.writeText($(from).textContent);
    $(id).textContent = "Copied";
    setTimeout(() => { $(id).textContent = "Copy"; }, 1500);
  }));
}

export function busy(id, text) {
  $(id).textContent = text;
  $(id).classList.toggle("busy", text !== "");
}

export const chosen = () => new Promise((resolve) => {
  const input = element("input", { type: "file" });
  input.addEventListener("change", () => resolve(input.files[0] ?? null));
  input.addEventListener("cancel", () => resolve(null));
  input.click();
});
