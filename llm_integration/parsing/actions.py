"""The words replies use for actions, in the languages models answer in. A phrase counts only as a whole."""

import re
import unicodedata
from functools import lru_cache

from llm_integration.model import Action

_WORDS: dict[Action, str] = {
    Action.ENTER_LONG: """
        buy|long|go long|enter long|open long|buy long|overweight|accumulate|add|outperform|increase
        买入|買入|买进|買進|做多|开多|開多|增持|加仓|加倉|超配|看多做多|小幅加仓|小幅加倉
        買い|買い推奨|購入|ロング|매수|강력 매수|적극 매수|비중확대|비중 확대
        comprar|compra|compre|sobreponderar|acheter|achat|achetez|surpondérer|surponderer
        kaufen|kauf|übergewichten|acquistare|acquisto|comprare|sovrappesare
        покупать|купить|покупка|satın al|kupuj|kupować|kopen|beli|mua|شراء|اشتر|खरीदें|ซื้อ
    """,
    Action.ENTER_SHORT: """
        sell|short|go short|enter short|open short|sell short|short sell|underweight|reduce|underperform|decrease
        卖出|賣出|卖空|賣空|做空|开空|開空|沽出|沽空|减持|減持|减仓|減倉|低配|小幅减仓|小幅減倉
        売り|売り推奨|売却|ショート|매도|강력 매도|적극 매도|비중축소|비중 축소
        vender|venta|venda|vende|infraponderar|vendre|vente|vendez|sous-pondérer|sous pondérer
        verkaufen|verkauf|untergewichten|vendere|vendita|sottopesare
        продавать|продать|продажа|sat|sprzedaj|sprzedawać|verkopen|jual|bán|بيع|बेचें|ขาย
    """,
    Action.EXIT: """
        exit|close|close position|exit position|close the position|exit the position|close long|close short
        exit long|exit short|flatten|liquidate
        平仓|平倉|清仓|清倉|离场|離場|出场|出場|决済|決済|手仕舞い|手仕舞う|청산
        cerrar|cerrar posición|cierre|fechar|fechar posição|clôturer|cloturer|fermer la position|sortir
        schließen|schliessen|glattstellen|chiudere|chiudi|закрыть|закрыть позицию|sluiten|zamknij
    """,
    Action.HOLD: """
        hold|neutral|wait|no action|no trade|do nothing|stay flat|stand aside|market perform|equal weight|equalweight
        market weight|hold position|hold the position|keep holding|continue to hold|holding
        持有|持有不动|持有不動|继续持有|繼續持有|观望|觀望|持有观望|持有觀望|持仓不动|持倉不動|持仓|中性|中立|按兵不动|按兵不動
        保有|ホールド|様子見|継続保有|보유|유지|중립|관망
        mantener|esperar|manter|aguardar|conserver|attendre|neutre|halten|abwarten|mantenere|tenere|attendere
        держать|удерживать|tut|bekle|trzymaj|trzymać|houden|aanhouden|tahan|nắm giữ|giữ|احتفاظ|انتظار|होल्ड|ถือ
    """,
    Action.MOVE_TO_BREAKEVEN: """
        move to be|move to breakeven|move to break even|move stop to be|move stop to breakeven|breakeven|break even
        move stop to break even|移至保本|移動至保本|移动至保本|保本止损|保本止損|移至盈亏平衡|移至盈虧平衡
    """,
    Action.ENABLE_TRAILING: """
        enable trail|enable trailing|enable trailing stop|trail stop|start trailing|activate trailing stop
        启用追踪止损|啟用追蹤止損|开启移动止损|開啟移動止損|启用移动止损|啟用移動止損
    """,
    Action.DISABLE_TRAILING: """
        disable trail|disable trailing|disable trailing stop|stop trailing|deactivate trailing stop
        停用追踪止损|停用追蹤止損|关闭移动止损|關閉移動止損|停用移动止损|停用移動止損
    """,
}
_DEGREES = re.compile(
    r"(?:(?:strong(?:ly)?|weak|moderate|cautious|tactical|speculative|conviction|modest)\s|[强強]烈|[谨謹]慎|适度|適度|逢低|逢高)"
)
_EDGES = " \t\r\n*_~`\"'“”‘’「」『』【】《》[]<>#.。,，;；:：!！—–-✅⚠️📈📉🟢🔴🟡👉"
_JOINERS = re.compile(r"[\s_-]+")
_PAREN = re.compile(r"(.*?)\s*[(（]([^()（）]*)[)）]", re.DOTALL)


def _fold(phrase: str) -> str:
    text = unicodedata.normalize("NFKC", phrase).casefold().strip(_EDGES)
    return _JOINERS.sub(" ", text).strip()


def _table() -> dict[str, Action]:
    table: dict[str, Action] = {}
    for action, words in _WORDS.items():
        for word in (action.value, *words.replace("\n", "|").split("|")):
            if word.strip():
                table[_fold(word)] = action
    return table


_TABLE = _table()
MAX_PHRASE = 60


@lru_cache(maxsize=1024)
def action_of(phrase: str) -> Action | None:
    """The action a phrase names: exactly, or with a degree before it ("strong buy"), or the same again in brackets.

    None for every other phrase: "do not buy", "buy or hold" and "not a sell" name none.
    """
    if len(phrase) > MAX_PHRASE:
        return None
    whole = _named(phrase)
    if whole is not None:
        return whole
    match = _PAREN.fullmatch(phrase.strip(_EDGES))
    if match is None:
        return None
    outer, inner = _named(match[1]), _named(match[2])
    return outer if outer is not None and outer == inner else None


def _named(phrase: str) -> Action | None:
    text = _fold(phrase)
    action = _TABLE.get(text)
    if action is None and (degree := _DEGREES.match(text)) is not None:
        action = _TABLE.get(text[degree.end() :].strip())
    return action


_LATIN = sorted((w for w in _TABLE if w.isascii() and len(w) > 2), key=len, reverse=True)
_OTHER = sorted((w for w in _TABLE if not w.isascii() and len(w) > 1), key=len, reverse=True)
_ANYWHERE = re.compile(
    r"\b(?:" + "|".join(map(re.escape, _LATIN)) + r")\b|" + "|".join(map(re.escape, _OTHER)), re.IGNORECASE
)


def actions_in(text: str) -> set[Action]:
    """Every action a text mentions anywhere, negated or not."""
    return {_TABLE[_fold(match[0])] for match in _ANYWHERE.finditer(_JOINERS.sub(" ", text))}
