"""Numbers in figures -> the words or the pinyin they are read with."""


def _names(text: str) -> list[str]:
    return text.split()


_ONES = _names(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = _names("_ _ twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_IRREGULAR = _names("one two three five eight nine twelve")
_ORDINALS = dict(zip(_IRREGULAR, _names("first second third fifth eighth ninth twelfth")))
_DIGITS = _names("ling yi er san si wu liu qi ba jiu")
_PLACES = ((1000, "qian"), (100, "bai"), (10, "shi"))


def english_number(digits: str) -> list[str]:
    """Words of a number: "24" -> twenty four; 1100 to 1999 as years; over 12 digits, or "007", one by one."""
    if len(digits) > 12 or digits != str(int(digits)):
        return [_ONES[int(digit)] for digit in digits]
    value = int(digits)
    if 1100 <= value < 2000:
        rest = ["hundred"] if value % 100 == 0 else ["oh"] * (value % 100 < 10) + _words(value % 100)
        return [*_words(value // 100), *rest]
    return _words(value)


def english_ordinal(digits: str) -> list[str]:
    """Words of "1st", "22nd", given the figures alone."""
    *words, last = english_number(digits)
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return [*words, _ORDINALS.get(last, regular)]


def chinese_number(digits: str) -> list[str]:
    """Toneless pinyin: "24" -> er shi si. Over 9999, or "007", one by one."""
    if len(digits) > 4 or digits != str(int(digits)) or digits == "0":
        return [_DIGITS[int(digit)] for digit in digits]
    value = int(digits)
    read: list[str] = []
    for place, name in _PLACES:
        digit, value = divmod(value, place)
        if digit:
            # 15 is "ten five", not "one ten five".
            read += [name] if name == "shi" and digit == 1 and not read else [_DIGITS[digit], name]
        elif read and value and read[-1] != "ling":
            read.append("ling")
    return [*read, _DIGITS[value]] if value else read


def _words(value: int) -> list[str]:
    for scale, name in _SCALES:
        if value >= scale:
            return [*_words(value // scale), name, *(_words(value % scale) if value % scale else [])]
    if value < 20:
        return [_ONES[value]]
    return [_TENS[value // 10], *([_ONES[value % 10]] if value % 10 else [])]
