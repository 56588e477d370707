"""The labels under which prose states an answer."""

import re
import unicodedata
from dataclasses import dataclass

_ACTION = """
    action|recommended action|proposed action|final action|recommendation|final recommendation|my recommendation
    our recommendation|overall recommendation|trading recommendation|investment recommendation|trade recommendation
    decision|final decision|trading decision|final trading decision|investment decision|final investment decision
    trade decision|portfolio decision|transaction proposal|final transaction proposal|final proposal|verdict
    final verdict|final trading signal|trading signal|trade signal|final signal|final answer|conclusion
    final conclusion|call|final call|stance|rating|final rating|overall rating|investment rating
    决策|最终决策|投资决策|最终投资决策|交易决策|最终交易决策|建议|最终建议|投资建议|最终投资建议|交易建议|最终交易建议|操作建议
    行动|操作|最终行动|结论|最终结论|我的结论|我的结论是|我的建议|我的建议是|评级|投资评级|推荐
    決策|最終決策|投資決策|最終投資決策|建議|最終建議|投資建議|最終投資建議|交易建議|最終交易建議|操作建議|行動|結論|最終結論|評級|推薦
    推奨|最終判断|判断|投資判断|最終決定|売買判断|결론|추천|최종 결정|투자의견|투자 의견|최종 판단
    recomendación|recomendación final|decisión|decisión final|acción|recomendação|recomendação final|decisão
    decisão final|ação|recommandation|recommandation finale|décision|décision finale|empfehlung|endgültige empfehlung
    entscheidung|endgültige entscheidung|aktion|raccomandazione|raccomandazione finale|decisione|decisione finale|azione
    рекомендация|итоговая рекомендация|решение|итоговое решение|действие
"""
_RATING = "rating|signal rating|final rating|overall rating|评级|評級"
_CONFIDENCE = """
    confidence|confidence level|confidence score|overall confidence|my confidence|置信度|置信水平|信心|信心度|信心水平
    信頼度|確信度|신뢰도|confianza|nivel de confianza|confiança|nível de confiança|confiance|niveau de confiance
    konfidenz|vertrauen|fiducia|livello di fiducia|уверенность
"""
_SYMBOL = "symbol|ticker|instrument|pair|股票代码|股票代碼"
_LEAD = re.compile(r"[\W_]{0,40}(?:\d{1,2}[.)、．]\s?)?[\W_]{0,20}")
_SEPARATOR = re.compile(r"[:：=→]|\s[—–-]\s")
_FOR = re.compile(r"(.+?) (?:for|on) (\S{1,20})")
_SCALE = re.compile(r"(.*?)[(（]([^()（）]{0,40})[)）]")


def _set(words: str) -> frozenset[str]:
    return frozenset(fold(word) for word in words.replace("\n", "|").split("|") if word.strip())


def fold(label: str) -> str:
    """A label without its dress: case, emphasis, numbering and doubled spaces."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return " ".join(text.translate(_DRESS).split()).rstrip("。.")


_DRESS = str.maketrans("*_`#>\"'“”[]【】", " " * 13)
ACTION, RATING, CONFIDENCE, SYMBOL = _set(_ACTION), _set(_RATING), _set(_CONFIDENCE), _set(_SYMBOL)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A line's label, the scale it states in brackets, the symbol it is for ("decision for AAPL"), and what follows."""

    label: str
    scale: str
    symbol: str | None
    value: str


def labelled(line: str) -> Labelled | None:
    """A line taken apart at its label; None where there is none."""
    lead = _LEAD.match(line)
    start = lead.end() if lead is not None else 0
    separator = _SEPARATOR.search(line, start, start + 60)
    if separator is None:
        return None
    label, scale = line[start : separator.start()], ""
    if (match := _SCALE.match(label)) is not None:
        label, scale = match[1], match[2]
    label, symbol = fold(label), None
    if (match := _FOR.fullmatch(label)) is not None:
        label, symbol = match[1], match[2]
    return Labelled(label, scale, symbol, line[separator.end() :])
