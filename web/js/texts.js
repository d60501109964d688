// SPDX-License-Identifier: Apache-2.0
// What our dialogs say, in the language of ComfyUI. Texts of nodes are in locales/.
import { app } from "../../../scripts/app.js";

// Sections of a song are named by the part of their tag before the first "-".
const TEXTS = {
  en: {
    add_keywords: "add keywords…",
    add_section: "add section…",
    search: "Search",
    nothing: "Nothing found",
    done: "Done",
    verse: "sung; the words change each time",
    chorus: "sung; the part that comes back",
    bridge: "sung; something new before the last chorus",
    intro: "opening without voice",
    inst: "between two sections, without voice",
    outro: "ending without voice",
    silence: "a short rest",
  },
  zh: {
    add_keywords: "添加关键词…",
    add_section: "添加段落…",
    search: "搜索",
    nothing: "没有找到",
    done: "完成",
    verse: "主歌：演唱，每次歌词不同",
    chorus: "副歌：演唱，反复出现的部分",
    bridge: "桥段：演唱，最后一次副歌前的变化",
    intro: "前奏：开头，无人声",
    inst: "间奏：两段之间，无人声",
    outro: "尾奏：结尾，无人声",
    silence: "静音：短暂停顿",
  },
  ja: {
    add_keywords: "キーワードを追加…",
    add_section: "セクションを追加…",
    search: "検索",
    nothing: "見つかりません",
    done: "完了",
    verse: "ヴァース：歌あり、毎回歌詞が変わる",
    chorus: "サビ：歌あり、繰り返される部分",
    bridge: "ブリッジ：歌あり、最後のサビの前の変化",
    intro: "イントロ：冒頭、歌なし",
    inst: "間奏：セクションの間、歌なし",
    outro: "アウトロ：終わり、歌なし",
    silence: "無音：短い休み",
  },
};

/** Texts in the language of the page; English where we have none. */
export function texts() {
  const language = app.extensionManager.setting.get("Comfy.Locale") ?? "en";
  return TEXTS[language.split("-")[0]] ?? TEXTS.en;
}
