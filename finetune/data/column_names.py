"""What the names of columns tell, in several languages: labels, documents, ids, other attributes.

    likely("Kategorie", LABELS)      # 0.9: nearly as telling as `category`

English names are listed, the most telling first. Names of other languages are known by a part of
them, since they are inflected and compounded: `Kategorie`, `Kategorien`, `Hauptkategorie`.
"""

import re
import unicodedata
from dataclasses import dataclass

HEADINGS = (
    "title", "subject", "headline", "heading", "betreff", "titel", "titre", "objet", "asunto",
    "titulo", "oggetto", "titolo", "заголовок", "标题", "件名", "제목",
)  # fmt: skip
PAIRS = (
    ("premise", "hypothesis"), ("text", "text_pair"), ("question", "sentence"),
    ("question", "passage"), ("question", "context"), ("question", "answer"),
    ("query", "document"), ("query", "passage"), ("claim", "evidence"),
)  # fmt: skip


def plain(name: str) -> str:
    """A name in lower case, without accents."""
    parts = unicodedata.normalize("NFKD", name.lower().strip())
    return unicodedata.normalize("NFC", "".join(c for c in parts if not unicodedata.combining(c)))


@dataclass(frozen=True)
class Names:
    """Names that tell what a column is for.

    Attributes:
        english: whole names, or words of names, the most telling first.
        parts: parts of names in other languages.
        as_english: the English name that those are as telling as.
    """

    english: tuple[str, ...]
    parts: re.Pattern[str]
    as_english: str


def _parts(words: str) -> re.Pattern[str]:
    return re.compile("|".join(plain(word) for word in words.split()))


LABELS = Names(
    (
        "label", "labels", "label_text", "label_name", "category", "categories", "class", "classes",
        "target", "intent", "topic", "topics", "sentiment", "emotion", "emotions", "tag", "tags",
        "genre", "queue", "department", "stars", "rating", "score", "type", "kind", "group", "y",
    ),
    _parts(
        "kateg klass etikett thema abteilung rubrik catég classe étiquette rubrique thème categor "
        "clase etiqueta tema etichetta categoria kategor klasa катег класс метк тематик рубрик "
        "类别 类目 分类 标签 類別 標籤 カテゴリ ラベル 분류 카테고리 라벨"
    ),
    "categories",
)  # fmt: skip
DOCUMENTS = Names(
    (
        "text", "document", "body", "content", "message", "article", "review", "sentence",
        "comment", "description", "tweet", "post", "utterance", "question", "query", "abstract",
        "news", "email", "complaint", "transcript", "paragraph", "title", "subject", "headline",
        "summary", "answer",
    ),
    _parts(
        "nachricht beschreib inhalt anfrage meldung kommentar frage bewertung text contenu avis "
        "commentaire descri mensaje mensagem texto contenid conteud reseña comentari testo "
        "messaggio tekst bericht omschrijving wiadomos opis текст сообщен описан отзыв комментар "
        "文本 正文 内容 评论 消息 本文 テキスト メッセージ 텍스트 내용 리뷰"
    ),
    "content",
)  # fmt: skip
NO_LABELS = re.compile(
    r"(.*[_ ])?(id|ids|uuid|guid|index|idx|date|time|timestamp|year|month|day|hour|split|fold|"
    r"lang|language|country|source|url|link|author|user|name|length|count|version)"
)
# What a document has beside its label: few values that repeat, as those of labels.
ATTRIBUTES = re.compile(
    _parts(
        "priorit dringlich urgen severity schwere status zustand statut estado stato channel kanal "
        "canal region gender geschlecht platform device currency währung sprache langue idioma "
        "lingua приоритет статус 优先级 状态 優先度 우선순위 상태"
    ).pattern
    + r"|(^|[^a-z])(state|sex|plan|tier|land|pays|pais)($|[^a-z])"
)


ID_NAMES = re.compile(r"(.*[_ .-])?(id|ids|uuid|guid|key|nr|no|number|nummer|numero|编号|番号)")


def is_id_name(name: str) -> bool:
    """Whether a name says that its column identifies rows: `ticket_id`, `ticketId`, `UUID`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return ID_NAMES.fullmatch(plain(words)) is not None


def rank(name: str, names: Names) -> float:
    """The place of a column's name among those that tell what it is; later where it only has one.

    The number of these names where nothing tells.
    """
    last = len(names.english)
    words = plain(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    if words in names.english:
        return names.english.index(words)
    parts = re.split(r"[^a-z0-9]+|(?<=[a-z])(?=\d)", words)
    if known := [part for part in parts if part in names.english]:
        return min(last - 1, last / 2 + names.english.index(known[-1]))
    return names.english.index(names.as_english) if names.parts.search(words) else last


def likely(name: str, names: Names) -> float:
    """How much a column's name tells that it is one of these, from 0, nothing, to 1."""
    return 1 - rank(name, names) / len(names.english)


def is_attribute(name: str) -> bool:
    """Whether a name is that of an attribute such as a priority or a status."""
    return ATTRIBUTES.search(plain(name)) is not None
