"""What the small SentencePiece models are trained on, and what they are asked: all text is this project's own."""

from toy_glue import mrpc_like, sst2_like

PROSE = """
A tokenizer cuts a text into pieces that a model knows by number, and a unigram model takes the cut that is most probable.
Every piece carries the logarithm of its probability, so the best cut is the longest path through a small graph of letters.
Words that are seen often stay whole; words that are seen seldom fall apart into syllables, endings and single letters.
The harbour lay quiet in the morning, and only the old ferry was moving slowly towards the islands in the north.
Nobody in the village could remember a winter so long, yet the children thought it had only just begun.
She had written seventeen letters to the newspaper before the editor, quite unexpectedly, published the shortest of them.
If the committee agrees, the bridge will be reopened on Tuesday; otherwise the decision is postponed until next September.
The second edition corrects nearly all mistakes of the first and adds several interesting new ones of its own.
Their grandmother's recipe asks for 250 grams of flour, three eggs, a little salt, and a great deal of patience.
"Where were you?" he asked. "We've been waiting since half past nine, and it's been raining the whole time!"
Prices rose by 3.7 percent in 2019, fell by 1.2 percent in 2020, and have hardly changed since then.
The mountain railway is being repaired, so that travellers who want to reach the observatory must walk for two hours.
What looked like an unimportant detail turned out to be the explanation that everybody had been searching for.
Measuring is difficult, comparing is more difficult, and drawing conclusions from both is the most difficult of all.
An unknown reader had underlined a few sentences in pencil and written a single question mark beside the last one.
The orchestra played beautifully, although the trumpets were a little too loud and the audience coughed during the slow movement.
It's impossible to understand the later chapters without having read the earlier ones; don't try, I did, and wasn't happy.
A good dictionary explains words, a better one explains how they're used, and the best one makes you forget what you looked for.
The engineers replaced the damaged cables, tested all connections twice, and finally switched the lights of the station on again.
Neither the director nor the leading actress attended the opening night, which surprised the critics more than the play itself.
""".strip().splitlines()

# Letters and signs beyond ASCII, so that some of them are pieces and others stay unknown.
OTHER = [
    "Zoë and José met in a café near the façade of the old theatre, naïve and curious, à la carte.",
    "Größe, Straße, Übung, über, für, schön: words with umlauts and a sharp s.",
    "日本語 の 文章 です 。 東京 と 大阪",
    "ο σοφός και η σοφία , της σοφίας",
    "мы читаем книгу , они читают письмо",
    "قرأت الكتاب في المساء",
    "10 € or 12 £ or 14 $ — that is the question … “quoted” and ‘quoted’ – done",
    "😀 👍 ❤ ☺",
]


def corpus(rng):
    """The lines that the models are trained on."""
    lines = PROSE * 3 + OTHER * 3
    for _ in range(120):
        first, second, _ = mrpc_like(rng)
        lines += [first, second, sst2_like(rng)[0]]
    return lines


# (what it shows, text, second text or None). Runs of whitespace, characters that the map rewrites, deletes or turns into a space,
# graphemes of several characters, scripts that are joined differently, and special tokens that are spelled out.
TORTURE = [
    ("empty", "", None),
    ("one space", " ", None),
    ("only spaces", "     ", None),
    ("only whitespace", " \t\n\r ", None),
    ("plain", "The harbour lay quiet in the morning.", None),
    ("pair", "The bridge will be reopened.", "It's postponed until next September!"),
    ("pair with an empty second text", "the old ferry", ""),
    ("pair with an empty first text", "", "the old ferry"),
    ("runs of spaces", "two  spaces,   three,          ten", None),
    ("spaces at both ends", "   the old ferry   ", None),
    ("a space at the end, as in SST-2", "the music is worth every minute ", None),
    ("tabs", "a\ttab\t\ttwo tabs \t mixed", None),
    ("tab at both ends", "\ta tab\t", None),
    ("newlines", "a line\nanother\r\na third\n\n\na last\n", None),
    ("no-break space", "a\u00a0no-break\u00a0\u00a0space", None),
    ("no-break space at both ends", "\u00a0a no-break space\u00a0", None),
    ("other spaces", "en\u2002em\u2003thin\u2009hair\u200aideographic\u3000narrow\u202fmath\u205fogham\u1680end", None),
    ("line and paragraph separators", "one\u2028two\u2029three\u0085four", None),
    ("vertical tab and form feed", "a\u000bb\u000cc", None),
    ("zero width", "zero\u200bwidth\u200cnon\u200djoiner\ufeffmark\u2060word", None),
    ("byte order mark first", "\ufeffthe old ferry", None),
    ("soft hyphen", "im\u00adpos\u00adsi\u00adble", None),
    ("control characters", "a\u0001b\u0002c\u0007d\u001be\u007ff\u0080g\u009fh", None),
    ("control character first", "\u0001the old ferry", None),
    ("control character last", "the old ferry\u0001", None),
    ("a space, then a control character, last", "the old ferry \u0001", None),
    ("only control characters", "\u0001\u0002\u0003", None),
    ("NUL", "a\u0000b", None),
    ("NUL first", "\u0000the", None),
    ("ligatures", "the \ufb01rst \ufb02oor o\ufb03ce o\ufb00 \ufb06", None),
    ("full-width", "Ｔｈｅ ｈａｒｂｏｕｒ，１２３！", None),
    ("half-width katakana", "ｶﾞｷﾞ ﾊﾟﾋﾟ", None),
    ("circled digits", "① ② ③ ⑳ ㊿ Ⓐ ⓩ", None),
    ("super- and subscripts", "x² y₃ 10⁻⁹ ™ ℃ № ½ ⅔", None),
    ("roman numerals and squared words", "Ⅳ ⅻ ㎏ ㍿ ㌔ ㋿", None),
    ("long expansions", "\ufdfa \ufdfb ﷽", None),
    ("composed accents", "Zoë naïve café façade Größe", None),
    ("decomposed accents", "Zoe\u0308 nai\u0308ve cafe\u0301 fac\u0327ade Gro\u0308ße", None),
    ("two marks on a letter", "e\u0302\u0301 a\u0323\u0302 o\u031b\u0301 u\u0308\u0304", None),
    ("marks without a letter", "\u0301 \u0308a \u0301\u0302", None),
    ("a mark on a space", "a \u0301b and \u00a0\u0301c", None),
    ("a mark on a full-width letter", "Ｅ\u0301 ｅ\u0308", None),
    ("a mark on a ligature", "\ufb01\u0301 \ufb02\u0308", None),
    ("a mark on a circled digit", "①\u0301 ②\u20dd", None),
    ("a combining keycap", "1\ufe0f\u20e3 #\ufe0f\u20e3", None),
    ("emoji", "😀 👍 ❤ ☺ 🎉", None),
    ("emoji with variation selectors", "❤\ufe0f ☺\ufe0e ☺\ufe0f", None),
    ("emoji with joiners", "👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 👍\U0001f3fd", None),
    ("flags", "🇦🇹🇯🇵 🇪🇺", None),
    ("CJK", "日本語の文章です。東京と大阪、そして漢字", None),
    ("CJK compatibility", "豈 金 㐀 𠀀 ㈱ 〒", None),
    ("hangul", "한국어 \u1112\u1161\u11ab\u1100\u116e\u11a8 ㅎㅏㄴ ﾡ", None),
    ("arabic", "قرأت الكتاب في المساء", None),
    ("arabic with marks", "كِتَابٌ مُحَمَّد", None),
    ("arabic presentation forms", "ﻻ ﷲ ﺏ", None),
    ("right-to-left marks", "\u200eabc\u200f \u202axyz\u202c \u2066q\u2069", None),
    ("hebrew and thai", "שלום עולם สวัสดี ำ", None),
    ("devanagari", "नमस्ते क्षत्रिय क\u093c", None),
    ("cyrillic", "мы читаем книгу", None),
    ("dotted and dotless i", "İstanbul ıssız I i", None),
    ("capitals with special lower case", "ΑΣ ΟΔΥΣΣΕΥΣ ẞ Straße ǅ", None),
    ("quotes and dashes", "“quoted” ‘quoted’ – — … ″ ‚ „", None),
    ("punctuation", "don't! (well), \"it's\" a/b c&d e@f 1,234.5% #tag $5 ~x ^y `z` {w} [v] <u> |t|", None),
    ("unicode punctuation", "¿qué? ¡sí! «oui» 「はい」 、。・ ‽", None),
    ("tilde and wave dash", "～ 〜 ~ ∼", None),
    ("the space mark itself", "a▁b ▁c▁ ▁▁d ▁", None),
    ("the space mark first", "▁the harbour", None),
    ("private use and noncharacters", "\ue000 \uf8ff \ufffe \uffff \U0010fffd", None),
    ("replacement character", "a\ufffdb", None),
    ("interlinear and tag characters", "\ufff9a\ufffab\ufffb \U000e0041", None),
    ("mathematical letters", "𝐓𝐡𝐞 𝒽𝒶𝓇 𝟙𝟚𝟛", None),
    ("deseret and musical", "𐐀𐐨 𝄞 𝅘𝅥𝅮", None),
    ("a long word", "unimportantimpossibleunexpectedlyinterestingexplanation" * 4, None),
    ("a long unknown word", "ᚠᚢᚦᚨᚱᚲ" * 10, None),
    ("unknown beside known", "theᚠharbour ᚠᚢ日ᚦ", None),
    ("bytes spelled out", "<0x41> <0xE2><0x96> 0x41", None),
    ("separator in the text", "the old [SEP] ferry", None),
    ("specials without spaces", "the[CLS]old[SEP]ferry[PAD]", None),
    ("specials with spaces around", "the  [MASK]  old\t[UNK]\tferry", None),
    ("only a special token", "[MASK]", None),
    ("specials first and last", "[CLS] the old ferry [SEP]", None),
    ("two specials", "[SEP][SEP] [UNK][UNK]", None),
    ("specials in a pair", "the [MASK] ferry", "an [UNK] reader [SEP]"),
    ("specials in lower case", "the [mask] old [sep] ferry [unk]", None),
    ("specials, broken", "[SEP [SE P] SEP] [ MASK ]", None),
    ("specials in full-width", "the ［ＳＥＰ］ ferry ［ＵＮＫ］ ［ＭＡＳＫ］", None),
    ("specials with marks", "[SEP]\u0301 [\u200bSEP] [UNK]\u0301", None),
    ("user-defined and control pieces", "a <user>name</user> <user> b [CTRL] c<user>", None),
    ("user-defined in another case", "a <USER> b <User>", None),
]

# The same, but not among the snippets that texts at random are made of. A run can be cut into the same pieces in several orders.
MORE = [
    ("a run of equals signs", "=====", None),
    ("a run of letters", "aaaaaaa", None),
    ("a run of digits", "0000000", None),
    ("a run of syllables", "hahahaha", None),
    ("a run of dots", "......", None),
    ("a run of dashes", "------", None),
    ("a run of exclamation marks", "!!!!!!", None),
    ("a run of six words", "the" * 6, None),
    ("a run of eleven words", "the" * 11, None),
    ("a run of twelve words", "the" * 12, None),
    ("a user-defined piece between letters", "the<user>harbour", None),
    ("a user-defined piece between spaces", "the <user> harbour", None),
]
