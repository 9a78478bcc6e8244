"""The language of documents, where their function words make it plain."""

import pytest

from finetune.data.language import FUNCTION_WORDS, guess_language

SENTENCES = {
    "da": "Regeringen har ikke sagt, at der er en plan for de nye skoler, og det er som i fjor.",
    "de": "Der Minister sagte, dass die Regierung den Plan für das neue Gesetz nicht kennt.",
    "en": "The minister said that the government is not aware of the plan for the new law.",
    "es": "El ministro dijo que el gobierno no conoce el plan de la nueva ley para los bancos.",
    "fr": "Le ministre a dit que le gouvernement ne connaît pas le plan de la nouvelle loi.",
    "it": "Il ministro ha detto che il governo non conosce il piano della nuova legge per la pace.",
    "nl": "De minister zei dat de regering het plan van de nieuwe wet niet kent.",
    "pl": "Minister powiedział, że rząd nie zna planu nowej ustawy i że to jest w drodze do celu.",
    "pt": "O ministro disse que o governo não conhece o plano da nova lei para os bancos.",
    "sv": "Ministern sade att det inte är en plan för den nya lagen och att det är som i fjol.",
    "tr": "Bakan bu yeni yasa için bir plan olduğunu ve daha çok para gerektiğini söyledi.",
    "ru": "Министр сказал, что правительство не знает о плане и что это не для него.",
}


@pytest.mark.parametrize("code", FUNCTION_WORDS)
def test_each_language(code):
    assert guess_language([SENTENCES[code]]) == code


def test_nothing_plain():
    assert guess_language([]) is None
    assert guess_language(["match team goal", "1 2 3", "部長は言った"]) is None
    assert guess_language([SENTENCES["de"], SENTENCES["en"]]) is None
