// SPDX-License-Identifier: Apache-2.0
// A list to search and choose from. The browser's own dialog brings Escape, the focus and its return.
import { texts } from "./texts.js";

const STYLE = `
.songgen-choices { width: min(680px, 92vw); height: min(620px, 86vh); padding: 0; margin: auto; overflow: hidden;
  border: 1px solid var(--border-color); border-radius: 10px; font: 14px/1.4 system-ui, sans-serif;
  background: var(--comfy-menu-bg); color: var(--input-text); box-shadow: 0 8px 40px #0008; }
.songgen-choices::backdrop { background: #0006; }
.songgen-choices form { display: flex; flex-direction: column; height: 100%; }
.songgen-choices header, .songgen-choices footer { display: flex; gap: 12px; padding: 12px 16px; align-items: center; }
.songgen-choices header { flex-wrap: wrap; border-bottom: 1px solid var(--border-color); }
.songgen-choices footer { justify-content: flex-end; border-top: 1px solid var(--border-color); }
.songgen-choices h2 { margin: 0; font-size: 15px; font-weight: 600; flex: 1; color: inherit; }
.songgen-choices h3 { margin: 10px 0 6px; font-size: 12px; font-weight: 600; color: var(--descrip-text); }
.songgen-choices section:first-child h3 { margin-top: 0; }
.songgen-choices main { flex: 1; overflow-y: auto; padding: 12px 16px 16px; }
.songgen-choices input, .songgen-choices button { font: inherit; color: inherit; background: var(--comfy-input-bg);
  border: 1px solid var(--border-color); border-radius: 6px; }
.songgen-choices input { flex: 1 1 220px; padding: 7px 10px; }
.songgen-choices button { padding: 4px 10px; margin: 0 6px 6px 0; cursor: pointer; }
.songgen-choices footer button { margin: 0; padding: 6px 18px; }
.songgen-choices button:hover, .songgen-choices :focus-visible { border-color: #3a9bdc; }
.songgen-choices :focus-visible { outline: 2px solid #3a9bdc; outline-offset: 1px; }
.songgen-choices [aria-pressed="true"] { background: #1f6fa8; border-color: #1f6fa8; color: #fff; }
.songgen-choices [aria-pressed="true"]::before { content: "✓ "; content: "✓ " / ""; }
.songgen-choices .noted { display: flex; gap: 16px; width: 100%; text-align: left; }
.songgen-choices .noted b { min-width: 9em; font-weight: 600; }
.songgen-choices [hidden] { display: none; }`;

/** A new element with properties and children; null children are left out. */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Show `groups`, [{ title, choices: [{ value, note }] }], until the user closes the dialog.
 * `choose(value)` is called for each press; `isChosen(value)` says what is marked after it, and without it
 * the first press closes the dialog. Returns a promise of the end.
 */
export function openChoices({ title, groups, choose, isChosen }) {
  const words = texts();
  const search = make("input", { placeholder: words.search, ariaLabel: words.search });
  const nothing = make("p", { hidden: true }, words.nothing);
  const sections = groups.map((group) =>
    make("section", {}, group.title ? make("h3", {}, group.title) : null, ...group.choices.map(button)),
  );
  const done = make("button", { type: "submit" }, words.done);
  const dialog = make(
    "dialog",
    { className: "songgen-choices", ariaLabel: title },
    make("style", {}, STYLE),
    make(
      "form",
      { method: "dialog" },
      make("header", {}, make("h2", {}, title), search),
      make("main", {}, ...sections, nothing),
      isChosen ? make("footer", {}, done) : null,
    ),
  );
  const shown = () => [...dialog.querySelectorAll("button[data-value]:not([hidden])")];

  function button({ value, note }) {
    const label = note ? [make("b", {}, value), make("span", {}, note)] : [value];
    const made = make("button", { type: "button", className: note ? "noted" : "" }, ...label);
    made.dataset.value = value;
    made.onclick = () => {
      choose(value);
      if (isChosen) mark();
      else dialog.close();
    };
    return made;
  }

  function mark() {
    for (const each of dialog.querySelectorAll("button[data-value]"))
      each.ariaPressed = String(isChosen(each.dataset.value));
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const section of sections) {
      for (const each of section.querySelectorAll("button"))
        each.hidden = !each.textContent.toLowerCase().includes(wanted);
      section.hidden = !section.querySelector("button:not([hidden])");
    }
    nothing.hidden = shown().length > 0;
  }

  function walk(event) {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const buttons = shown();
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "Enter" && document.activeElement === search) {
      event.preventDefault(); // it would send the form
      buttons[0]?.click();
      search.select();
    } else if (step && (at >= 0 || event.key === "ArrowDown")) {
      event.preventDefault();
      (buttons[at + step] ?? search).focus();
    }
    event.stopPropagation(); // the page has commands on single keys
  }

  search.oninput = filter;
  dialog.onkeydown = walk;
  dialog.onpointerdown = (event) => event.target === dialog && dialog.close(); // outside of the form
  document.body.append(dialog);
  if (isChosen) mark();
  dialog.showModal();
  search.focus();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve();
    };
  });
}
