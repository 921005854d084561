"""Random plain sentences for the synthetic voices: every phone is frequent, no text is copied."""

from __future__ import annotations

import random

_NOUNS = """apple baby boat bottle bubble captain chapel coffee cup dog fable family farmer field
finger fish flower foot forest fox game garden glove gold harbour hobby horse house island jacket
judge kitchen lamp leaf level letter lip map marble match measure member milk mirror moment money
month moon mother mouth movie mug number oven paper path people pepper piano picture pilot plum
pocket poem pool puppy purple question rabbit rain river road robot room rope school shadow sheep
shelf ship shoe shovel summer supper table teacher thumb tiger tooth top treasure trip tub tube
umbrella uncle valley value van village violin voice volume wave weather week whale whisper wife
window wolf wood wool world yard year youth zebra zoo""".split()
_VERBS = """ask begin bring build buy call carry catch chew choose climb cook cover dance draw dream
drive drop eat fall feed feel find fix fly follow forget give grow hear help hide hold hope jump
keep kick laugh learn leave lift like live look lose love make measure meet mix move need open paint
pay pick play promise pull push put reach read remember rub run save say see sell send shape share
show shut sing sit sleep smell smile speak spell stop study swim take taste teach tell think throw
touch trust try use visit wait walk want warm wash watch wear whistle win wish wonder work write""".split()
_ADJECTIVES = """amber big blue bold brave bright broad brown calm cheap clever cold cool dark deep
dull early empty fair fast fine firm flat fresh full gentle golden good great green happy heavy huge
humble large late light little long loud lovely mild narrow new noble odd old open pale perfect
plain poor proud pure quick quiet rare rich rough round royal sharp short simple slow small smooth
soft sour square strange strong sweet tall thick thin tiny tough useful vague warm weak wet whole
wide wild wise wooden wrong yellow young""".split()
_FRAMES = (
    "The {a} {n} and the {a} {n} {v} by the {n}.",
    "Why do you {v} my {n} before we {v}?",
    "Maybe {n} {n} should {v} above the {a} {n}, but I {v} it.",
    "We {v} five or six {n}s from the {a} {n} every {n}.",
    "Please {v} the {n}, {v} the {n}, and {v} {a} {n}s.",
    "If they {v} a {a} {n}, both of us will {v} in the {n}.",
    "Mama and papa {v} {a} {n}s; nobody could {v} them.",
    "She would {v} what I {v}, although the {n} was {a}, {a} and {a}!",
    "You {v} two {n}s. You {v} too few {n}s. Whose {n} is it?",
    "Pam bought a {a} {n} for Bob, Fiona gave Vivian the {n}.",
    "Here is the {n} of the {n}: {a}, {a}, {a}.",
    "No. Yes! Oh, {v} me. Well, who knows which {n} we {v}?",
    "Sue showed you {n}s with {a} {n}s on the usual {n}.",
    "Hello, I hope you {v}. Our {n} is very {a} today.",
    "Both {n}s have been above the {n} ever since {a} {n}s came.",
)


def sentence(rng: random.Random) -> str:
    """One or two sentences of 6-20 words."""
    text = rng.choice(_FRAMES)
    if rng.random() < 0.3:
        text += " " + rng.choice(_FRAMES)
    for mark, words in (("{n}", _NOUNS), ("{v}", _VERBS), ("{a}", _ADJECTIVES)):
        while mark in text:
            text = text.replace(mark, rng.choice(words), 1)
    return text


_PINYIN = """wo3 ni3 ta1 men5 ming2 tian1 qu4 bei3 jing1 chi1 fan4 peng2 you3 ba4 ba5 ma1 bu4 pa4
piao4 liang5 mei2 fang1 bian4 ping2 guo3 mian4 bao1 pu2 tao2 mei4 fei1 ji1 feng1 yu3 wu3 yue4 lao3
shi1 xue2 sheng1 shuo1 hua4 nu3 li4 lü4 se4 nü3 er2 lü3 xing2 nian2 chun1 zhong1 zhi1 dao4 jian1 chu1
lai2 ru2 yin1 wei4 suo3 yi3 jin1 qi4 hen3 hao3 shu1 fang4 zai4 zhuo1 zi5 mai3 mai4 mi4 mu4 hu4 po4
tou5 mo2 fo2 men2 kou3 he1 shui3 ge1 jie3 dian4 pao3 yin1 qi3 huan1 ying2 wen4 ti2 fei1 chang2 bai2
ren2 ri4 dui4 dong1 xi5 gong1 zuo4 kuai4 man4 xiang3 yao4 neng2 kan4 jian4 ting1 shen2 me5 zen3 na3""".split()


def mandarin(rng: random.Random) -> list[str]:
    """Numbered pinyin syllables of one random phrase, with commas between its parts."""
    parts = [rng.choices(_PINYIN, k=rng.randint(4, 9)) for _ in range(rng.randint(2, 3))]
    return [syllable for part in parts for syllable in (*part, ",")]


def _pairs(text: str) -> dict[str, str]:
    """`a=b c=d` -> {"a": "b", "c": "d"}."""
    return {left: right for left, _, right in (pair.partition("=") for pair in text.split())}


_INITIALS = _pairs(
    """
    zh=ꭧ ch=ꭧʰ sh=ʂ b=p p=pʰ m=m f=f d=t t=tʰ n=n l=l g=k k=kʰ h=x j=ʨ q=ʨʰ x=ɕ r=ɻ z=ʦ c=ʦʰ s=s
    """
)
_FINALS = _pairs(
    """
    a=a o=wo e=ɤ i=i u=u ü=y ai=ai ei=ei ao=au ou=ou an=an en=ən ang=aŋ eng=əŋ ong=ʊŋ ia=ja
    ie=je iao=jau iu=jou ian=jɛn in=in iang=jaŋ ing=iŋ iong=jʊŋ ua=wa uo=wo uai=wai ui=wei
    uan=wan un=wən uang=waŋ ueng=wəŋ üe=ɥe üan=ɥɛn ün=yn er=əɻ
    """
)
_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}


def pinyin_ipa(syllable: str) -> str:
    """`zhong1` -> phonetic spelling with a tone arrow; a comma stays a comma."""
    if syllable == ",":
        return ", "
    body, tone = syllable[:-1], _TONES[syllable[-1]]
    for glide, final in (("yu", "ü"), ("y", "i"), ("wu", "u"), ("w", "u")):
        if body.startswith(glide):
            body = (final + body[len(glide) :]).replace("ii", "i")
            return (
                _FINALS[{"uei": "ui", "iou": "iu", "uen": "un", "ien": "in"}.get(body, body)] + tone
            )
    for letters, sound in _INITIALS.items():
        if body.startswith(letters):
            final = body[len(letters) :]
            if letters in ("j", "q", "x") and final.startswith("u"):
                final = "ü" + final[1:]
            if final == "i" and letters in ("zh", "ch", "sh", "r", "z", "c", "s"):
                return sound + "ɨ" + tone
            if final == "o" and letters in ("b", "p", "m", "f"):
                return sound + "wo" + tone
            return sound + _FINALS[final] + tone
    return _FINALS[body] + tone
