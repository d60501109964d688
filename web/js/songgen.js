// SPDX-License-Identifier: Apache-2.0
// Gives our saving node the audio player that the frontend reserves for a fixed list of core nodes.
import { app } from "../../../scripts/app.js";

const PLAYERS = new Set(["SongGenSaveAudio"]);

app.registerExtension({
  name: "songgen.audio",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (PLAYERS.has(nodeData.name)) nodeData.input.required.audioUI = ["AUDIO_UI", {}];
  },
});
