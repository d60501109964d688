// SPDX-License-Identifier: Apache-2.0
// Colours of our links, and a tint of the title that tells loader, words, sound and pictures apart.
import { app } from "../../../scripts/app.js";

// Three hues of Okabe and Ito, which colour-blind people tell apart, on dark ground and on light.
const LINKS = { SONGGEN_MODEL: "#e69f00", SONGGEN_CODES: "#3a9bdc", SONGGEN_PROMPT: "#cc79a7" };
const TITLES = { loader: "#4b3b1c", words: "#2d4331", sound: "#1f3d50", pictures: "#47304b" };

app.registerExtension({
  name: "songgen.colours",
  setup() {
    const style = document.createElement("style"); // Nodes 2.0; a theme with colours for our types wins
    const rules = Object.entries(LINKS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
    style.textContent = `:root { ${rules.join(" ")} }`;
    document.head.append(style);
    // A change of the theme empties the colours of types that it does not know, and writes to this element.
    new MutationObserver(colourLinks).observe(document.documentElement, { attributeFilter: ["style"] });
    colourLinks();
  },
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("SongGen")) tintTitle(node);
  },
});

function colourLinks() {
  for (const [type, colour] of Object.entries(LINKS)) {
    app.canvas.default_connection_color_byType[type] ||= colour;
    app.canvas.constructor.link_type_colors[type] ||= colour;
  }
}

/** A colour that the user sees but that is not saved; a colour of their own takes its place. */
function tintTitle(node) {
  const tint = TITLES[kindOf(node)];
  node.color = tint;
  const before = node.onSerialize;
  node.onSerialize = function (saved) {
    before?.call(this, saved);
    if (saved.color === tint) delete saved.color;
  };
}

function kindOf({ inputs, outputs }) {
  const types = [...inputs, ...outputs].map(({ type }) => type);
  if (outputs.some(({ type }) => type === "SONGGEN_MODEL")) return "loader";
  if (types.some((type) => type === "IMAGE" || type === "VIDEO")) return "pictures";
  if (types.some((type) => type === "AUDIO" || String(type).startsWith("SONGGEN_"))) return "sound";
  return "words";
}
