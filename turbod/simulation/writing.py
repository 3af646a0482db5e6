"""Texts that nobody wrote: posts with languages, emoji, links, tags and mentions. Pure."""

from random import Random
from typing import Any, Final

_WRITTEN: Final = {
    "en": (
        "the and of a to in it is was that for on with as at by this but not from they say her she "
        "or will one all would there their what so up out if about who get which go me when make "
        "can like time no just him know take people into year good some could them see other than "
        "then now look only come its over think also back after use two how our work first well "
        "even new want because any these give day most us train river coffee garden window bread "
        "weather morning R&B <3 lighthouse protocol feed thread"
    ),
    "ja": (
        "今日 明日 昨日 天気 電車 朝 夜 楽しい 嬉しい 美味しい ごはん 猫 犬 写真 映画 音楽 "
        "仕事 休み 寝る 起きる 待って ありがとう おはよう おやすみ やばい かわいい"
    ),
    "pt": (
        "que não uma para com mais por como mas foi ele das tem seu sua ou ser quando muito há nos "
        "já está também pelo pela até isso ela entre era depois sem mesmo aos ter seus coração "
        "manhã amanhã ônibus café água música"
    ),
    "de": (
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es "
        "an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über straße "
        "frühstück grüße zug brücke"
    ),
    "es": (
        "de la que el en y a los del se las por un para con no una su al lo como más pero sus le "
        "ya o este sí porque esta entre cuando muy sin sobre también me hasta hay donde quien "
        "mañana niño corazón"
    ),
    "ko": "오늘 내일 날씨 아침 저녁 고양이 강아지 사진 영화 음악 커피 좋아 진짜 너무 정말",
    "ru": (
        "и в не на я что тот быть он как это по но они мы весь она который то из который за "
        "собака утро вечер поезд кофе погода сегодня завтра"
    ),
}
WORDS: Final = {name: words.split() for name, words in _WRITTEN.items()}
EMOJI: Final = ("😂", "😍", "🔥", "💦", "🚆", "🦊", "☕", "❤️", "👩‍👩‍👧", "🇧🇷", "👇🏽", "✨", "🫠")
SITES: Final = ("www.youtube.com", "example.org", "www.theguardian.com", "blog.example.net")
TAGS: Final = ("art", "caturday", "NowPlaying", "写真", "bücher", "IndieRebellion", "rail", "dev")
_LANGUAGES: Final = ("en", "ja", "pt", "de", "es", "ko", "ru")
_LANGUAGE_WEIGHTS: Final = (55, 18, 10, 6, 5, 3, 3)
_SYLLABLES: Final = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_MAX_GRAPHEMES: Final = 300


def language(random: Random) -> str:
    """Draw the language that an account writes in."""
    return random.choices(_LANGUAGES, _LANGUAGE_WEIGHTS)[0]


def invented(number: int) -> str:
    """Return a word that is this number's own: it keeps every text unique."""
    word = ""
    while number or not word:
        number, digit = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[digit]
    return word


def words(random: Random, language: str, *, mean: int) -> str:
    """Write about `mean` words, seldom many more."""
    count = min(1 + int(random.expovariate(1 / mean)), 3 * mean)
    separator = "" if language == "ja" else " "
    return separator.join(random.choices(WORDS[language], k=count))


def web_address(random: Random) -> str:
    """Invent a link; a third have a query with the `&` that Go's JSON escapes."""
    address = f"https://{random.choice(SITES)}/{random.getrandbits(40):x}"
    if random.random() < 1 / 3:
        address += f"?v={random.getrandbits(24):x}&t={random.randrange(600)}s"
    return address


class Text:
    """A text under construction, with the facets that point into its UTF-8 bytes."""

    def __init__(self, begin: str = "") -> None:
        self.text = begin
        self.facets: list[dict[str, Any]] = []

    def add(self, part: str) -> None:
        """Append plain text, where it fits into a post."""
        if len(self.text) + len(part) < _MAX_GRAPHEMES:
            self.text += (" " if self.text else "") + part

    def add_link(self, address: str) -> None:
        """Append a link, shortened as the official app does."""
        shown = address.removeprefix("https://")
        shown = shown if len(shown) < 30 else shown[:27] + "..."  # noqa: PLR2004 - the app's own
        self._add_facet(shown, {"$type": "app.bsky.richtext.facet#link", "uri": address})

    def add_tag(self, tag: str) -> None:
        """Append a hashtag."""
        self._add_facet("#" + tag, {"$type": "app.bsky.richtext.facet#tag", "tag": tag})

    def add_mention(self, handle: str, did: str) -> None:
        """Append a mention."""
        feature = {"$type": "app.bsky.richtext.facet#mention", "did": did}
        self._add_facet("@" + handle, feature)

    def _add_facet(self, shown: str, feature: dict[str, Any]) -> None:
        if len(self.text) + len(shown) + 1 >= _MAX_GRAPHEMES:
            return
        self.text += " " if self.text else ""
        start = len(self.text.encode())
        self.text += shown
        index = {"byteEnd": start + len(shown.encode()), "byteStart": start}
        self.facets.append({"features": [feature], "index": index})
