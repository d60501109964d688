"""Buttons, dialogs and colours that our scripts add to the page."""

import pytest
from comfy_client import Client, ui_workflow
from comfy_page import MODES, chromium, comfy_page, load, press

pytestmark = pytest.mark.comfyui

STYLE, LYRICS = "SongGenDescriptionTags", "SongGenLyricsFormatter"
VALUES = """type => Object.fromEntries(
  app.graph.nodes.find(n => n.type === type).widgets.map(w => [w.name, w.value]))"""
SAVED = "type => app.graph.serialize().nodes.find(n => n.type === type)"
SENT = """async type => Object.values((await app.graphToPrompt()).output)
  .find(n => n.class_type === type).inputs"""
SHOWN = """[...document.querySelectorAll('.songgen-choices button[data-value]:not([hidden])')].map(
  button => button.dataset.value)"""
NAME_THE_BOX = """text => {
  [...document.querySelectorAll('textarea')].find(box => box.value === text).id = 'lyrics' }"""
LINK_COLOURS = """['SONGGEN_MODEL', 'SONGGEN_CODES', 'SONGGEN_PROMPT'].map(type => [
  app.canvas.default_connection_color_byType[type], app.canvas.constructor.link_type_colors[type],
  getComputedStyle(document.documentElement).getPropertyValue('--color-datatype-' + type).trim()])"""
COLOURS = ["#e69f00", "#3a9bdc", "#cc79a7"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def shared_page(browser, comfy: Client, mode):
    with comfy_page(browser, comfy, mode) as page:
        yield page


@pytest.fixture
def page(shared_page):
    load(shared_page, ui_workflow("text_to_song"))
    yield shared_page
    shared_page.keyboard.press("Escape")  # what a failed test left open


def extra(page) -> str:
    return page.evaluate(VALUES, STYLE)["extra"]


def lyrics(page) -> str:
    return page.evaluate(VALUES, LYRICS)["lyrics"]


def dialogs(page) -> int:
    return page.locator("dialog.songgen-choices[open]").count()


def test_keywords_are_found_added_once_and_removed(page, mode):
    press(page, mode, STYLE, "add_keywords")
    page.keyboard.type("violi")
    assert page.evaluate(SHOWN) == ["violin"]
    page.keyboard.press("Enter")
    assert extra(page) == "drums, violin"
    page.keyboard.press("Enter")  # again: taken away
    assert extra(page) == "drums"
    page.keyboard.type("melanch")  # the search was selected: typing begins anew
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert dialogs(page) == 0
    assert extra(page) == page.evaluate(SENT, STYLE)["extra"] == "drums, melancholic"


def test_what_is_chosen_is_marked_and_can_be_removed_wherever_it_stands(page, mode):
    press(page, mode, STYLE, "add_keywords")
    pressed = page.locator(".songgen-choices [aria-pressed=true]")
    assert pressed.all_inner_texts() == ["female", "pop", "bright", "hopeful", "drums", "piano"]
    page.get_by_role("button", name="piano", exact=True).click()
    page.get_by_role("button", name="drums", exact=True).click()
    page.get_by_role("button", name="Done").click()
    values = page.evaluate(VALUES, STYLE)
    assert (values["instrument"], values["extra"], values["genre"]) == ("any", "", "pop")


def test_the_list_is_walked_with_arrows_and_closed_by_a_click_outside(page, mode):
    press(page, mode, STYLE, "add_keywords")
    for key in ("ArrowDown", "ArrowDown", "Space"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.value") == "male"
    for key in ("ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.tagName") == "INPUT"
    page.keyboard.type("no such thing")
    assert page.get_by_text("Nothing found").is_visible()
    page.mouse.click(5, 500)
    assert dialogs(page) == 0
    assert extra(page) == "drums, male"


def test_undo_takes_back_all_that_was_chosen_in_one_step(page, mode):
    press(page, mode, STYLE, "add_keywords")
    for word in ("harp", "cello"):
        page.keyboard.type(word)
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert extra(page) == "drums, harp, cello"
    page.keyboard.press("Control+z")
    page.wait_for_function(f"({VALUES})('{STYLE}').extra === 'drums'")


def test_a_section_goes_to_the_caret_with_a_blank_line_above(page, mode):
    begin = lyrics(page)
    page.evaluate(NAME_THE_BOX, begin)
    box = page.locator("#lyrics")
    box.focus()
    box.evaluate("box => { const at = box.value.indexOf('\\n\\n[chorus]'); box.setSelectionRange(at, at) }")
    press(page, mode, LYRICS, "add_section")
    page.keyboard.type("bridge")
    page.keyboard.press("Enter")
    assert dialogs(page) == 0
    page.wait_for_function("document.activeElement.id === 'lyrics'")
    page.keyboard.type("Over the hills")  # the caret is below the tag
    assert lyrics(page) == begin.replace("\n\n[chorus]", "\n\n[bridge]\nOver the hills\n[chorus]")
    press(page, mode, LYRICS, "add_section")
    page.get_by_role("button", name="[inst-short]").click()
    assert "Over the hills\n\n[inst-short]\n\n[chorus]" in lyrics(page)


def test_a_section_goes_to_the_end_of_lyrics_that_nobody_touched(page, mode):
    begin = lyrics(page)
    page.evaluate("document.activeElement.blur()")
    page.evaluate(
        f"() => {{ app.graph.nodes.find(n => n.type === '{LYRICS}').widgets[0].value += '\\n\\n' }}"
    )
    press(page, mode, LYRICS, "add_section")
    page.get_by_role("button", name="[verse]").click()
    assert lyrics(page) == page.evaluate(SENT, LYRICS)["lyrics"] == f"{begin}\n\n[verse]\n"


@pytest.mark.parametrize("node_type, button", [(STYLE, "add_keywords"), (LYRICS, "add_section")])
def test_a_button_is_neither_saved_nor_sent(page, node_type, button):
    stored = next(n for n in ui_workflow("text_to_song")["nodes"] if n["type"] == node_type)
    assert button in page.evaluate(VALUES, node_type)
    assert page.evaluate(SAVED, node_type)["widgets_values"] == stored["widgets_values"]
    assert button not in page.evaluate(SENT, node_type)
    fresh = page.evaluate(
        f"() => {{ const n = LiteGraph.createNode('{node_type}'); app.graph.add(n); return n.serialize() }}"
    )
    assert len(fresh["widgets_values"]) == len(stored["widgets_values"])


def test_links_have_colours_of_their_own_in_every_theme(page):
    assert page.evaluate(LINK_COLOURS) == [[c] * 3 for c in COLOURS]
    for theme in ("light", "dark"):
        page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
        page.wait_for_timeout(1000)
        assert page.evaluate(LINK_COLOURS) == [[c] * 3 for c in COLOURS]


def test_title_colours_tell_kinds_apart_and_are_not_saved(page):
    colours = page.evaluate("Object.fromEntries(app.graph.nodes.map(n => [n.type, n.color]))")
    kinds = ["SongGenLoadLeVoModel", LYRICS, "SongGenGenerateTokens"]
    assert len({colours[kind] for kind in kinds}) == 3 and None not in (colours[kind] for kind in kinds)
    assert colours[STYLE] == colours[LYRICS] and colours["SongGenSaveAudio"] == colours[kinds[2]]
    assert "color" not in page.evaluate(SAVED, STYLE)


def test_a_colour_that_the_user_gave_stays(page):
    workflow = ui_workflow("text_to_song")
    for node in workflow["nodes"]:
        node["color"] = "#223344"
    load(page, workflow)
    assert page.evaluate(SAVED, STYLE)["color"] == "#223344"


@pytest.mark.parametrize(
    "language, button, search",
    [("zh", "添加关键词…", "搜索"), ("ja", "キーワードを追加…", "検索"), ("fr", "add keywords…", "Search")],
)
def test_texts_are_in_the_language_of_the_page(browser, comfy, language, button, search):
    with comfy_page(browser, comfy, Locale=language) as page:
        load(page, ui_workflow("text_to_song"))
        label = f"app.graph.nodes.find(n => n.type === '{STYLE}').widgets.at(-1).label"
        assert page.evaluate(label) == button
        press(page, "classic", STYLE, "add_keywords")
        assert page.get_by_placeholder(search, exact=True).is_visible()
