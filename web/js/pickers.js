// SPDX-License-Identifier: Apache-2.0
// Buttons on two nodes: keywords for the style of a song, and tags for the sections of its lyrics.
import { app } from "../../../scripts/app.js";
import { openChoices } from "./choices.js";
import { texts } from "./texts.js";

const BUTTONS = { SongGenDescriptionTags: addKeywordButton, SongGenLyricsFormatter: addSectionButton };
let left = null; // the text box that was left last, and where its caret was

app.registerExtension({
  name: "songgen.pickers",
  setup() {
    document.addEventListener("focusout", ({ target }) => {
      if (target instanceof HTMLTextAreaElement) left = { box: target, caret: target.selectionEnd };
    });
  },
  nodeCreated(node) {
    BUTTONS[node.comfyClass]?.(node);
  },
});

/** A button below all widgets; it is in neither the saved workflow nor the prompt. */
function addButton(node, name, press) {
  const button = node.addWidget("button", name, null, () => void press(), { serialize: false });
  button.serialize = false;
  button.label = texts()[name];
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
}

function setValue(widget, value) {
  widget.value = value;
  widget.callback?.(value);
  app.canvas.setDirty(true, true);
}

/** `openChoices` as one step for undo. */
async function choose(options) {
  app.canvas.emitBeforeChange();
  try {
    await openChoices(options);
  } finally {
    app.canvas.emitAfterChange();
  }
}

function addKeywordButton(node) {
  const extra = node.widgets.find((widget) => widget.name === "extra");
  const combos = node.widgets.filter((widget) => widget.type === "combo");
  const typed = () => extra.value.split(/[,;，、；\n]/).map((word) => word.trim()).filter(Boolean);
  const same = (word) => (other) => other.toLowerCase() === word;

  function toggle(word) {
    const combo = combos.find((widget) => widget.value === word);
    if (combo) setValue(combo, combo.options.values[0]); // "any"
    else if (typed().some(same(word))) setValue(extra, typed().filter((other) => !same(word)(other)).join(", "));
    else setValue(extra, [...typed(), word].join(", "));
  }

  addButton(node, "add_keywords", () =>
    choose({
      title: node.title,
      groups: combos.map((widget) => ({
        title: widget.label ?? widget.name,
        choices: widget.options.values.slice(1).map((value) => ({ value })),
      })),
      isChosen: (word) => typed().some(same(word)) || combos.some((widget) => widget.value === word),
      choose: toggle,
    }),
  );
}

function addSectionButton(node) {
  const lyrics = node.widgets.find((widget) => widget.name === "lyrics");
  const { structure_tags } = node.constructor.nodeData.input.required.lyrics[1];

  addButton(node, "add_section", () => {
    const place = isBoxOf(lyrics, left?.box) ? left : null;
    const words = texts();
    return choose({
      title: node.title,
      groups: [{ choices: structure_tags.map((tag) => ({ value: `[${tag}]`, note: words[tag.split("-")[0]] })) }],
      choose: (tag) => insertSection(lyrics, tag, place),
    });
  });
}

/** Whether a text box shows this widget: by the widget's word, or as the only one with its text. */
function isBoxOf(widget, box) {
  if (!box?.isConnected) return false;
  const alike = [...document.querySelectorAll("textarea")].filter(
    (other) => other.value === widget.value && other.getClientRects().length > 0,
  );
  return box === (widget.element ?? widget.inputEl) || (alike.length === 1 && alike[0] === box);
}

/** Put a tag on a line of its own, a blank line above it, where the caret was or at the end. */
function insertSection(lyrics, tag, place) {
  const caret = place?.caret ?? lyrics.value.length;
  const before = lyrics.value.slice(0, caret).trimEnd();
  const after = lyrics.value.slice(caret).trimStart();
  const start = `${before}${before && "\n\n"}${tag}\n`;
  setValue(lyrics, start + (after.startsWith("[") ? "\n" : "") + after);
  if (place) requestAnimationFrame(() => toCaret(place, start.length)); // the page writes the text first
}

function toCaret(place, caret) {
  place.caret = caret;
  place.box.focus();
  place.box.setSelectionRange(caret, caret);
}
