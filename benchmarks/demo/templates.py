"""The demo suite's sentences in each language: item i of every tuple says the same in all of them.

A name stands where the nominative is right in every language, and all persons are women, so that the words around a
name need not agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """Something that can be said of a person: a statement about `{person}` with the `{name}`, and its question."""

    statement: str
    question: str


@dataclass(frozen=True)
class Templates:
    """The sentences of one language.

    Attributes:
        persons: given names of women, which are never names to be found.
        between_sentences, between_names: what separates the sentences of a text and the names of a list.
        categories: kind of name -> the noun for it, as it fits into `choices`.
        topics: sentences about a `{name}` that do not tell what kind of name it is.
        counts: sentences that list `{names}`.
        choices: questions for a name of a `{category}`.
        mentions: sentences with the names `{a}`, `{b}` and `{c}` that do not tell what kind each is; they are only
            used as tokens, so Chinese has spaces between words here.
        facts: what a fact is about, see `FACT_KINDS` -> the fact.
    """

    persons: tuple[str, ...]
    between_sentences: str
    between_names: str
    categories: Mapping[str, str]
    topics: tuple[str, ...]
    counts: tuple[str, ...]
    choices: tuple[str, ...]
    mentions: tuple[str, ...]
    facts: Mapping[str, Fact]


FACT_KINDS = {
    "birth": "city",
    "work": "city",
    "visit": "country",
    "reading": "country",
    "collection": "currency",
    "trip": "currency",
    "learning": "language",
    "teaching": "language",
}
"""What a fact is about -> the kind of name that it mentions."""

ENGLISH = Templates(
    persons=("Anna", "Maria", "Elena", "Nina", "Sara", "Julia", "Laura", "Vera"),
    between_sentences=" ",
    between_names=", ",
    categories={"city": "a city", "country": "a country", "currency": "a currency", "language": "a language"},
    topics=(
        "The word on the card is {name}.",
        "{person} wrote a new word in her notebook: {name}.",
        "Next question of the quiz: {name}.",
        "The heading of this page is “{name}”.",
        "“{name}” was the last entry on the list.",
        "Everybody was talking about one thing only: {name}.",
    ),
    counts=("The words on the list are {names}.", "{person} read four words aloud: {names}."),
    choices=("Which of these is {category}?", "We are looking for the name of {category}."),
    mentions=(
        "{person} wrote three words on the board: {a}, {b} and {c}.",
        "The quiz began with the word “{a}”, went on with “{b}” and ended with “{c}”.",
        "On the list: {a}, then {b} and at the end, as {person} had asked, {c}.",
        "The right answer was {a}, not {b}; {person} had guessed: {c}.",
    ),
    facts={
        "birth": Fact("The city where {person} was born is {name}.", "In which city was {person} born?"),
        "work": Fact("The city where {person} works is {name}.", "In which city does {person} work?"),
        "visit": Fact("The country {person} wants to visit is {name}.", "Which country does {person} want to visit?"),
        "reading": Fact("The country {person} is reading about is {name}.", "Which country is {person} reading about?"),
        "collection": Fact("The currency {person} collects is {name}.", "Which currency does {person} collect?"),
        "trip": Fact(
            "The currency {person} is taking on her trip is {name}.",
            "Which currency is {person} taking on her trip?",
        ),
        "learning": Fact("The language {person} is learning is {name}.", "Which language is {person} learning?"),
        "teaching": Fact("The language {person} teaches is {name}.", "Which language does {person} teach?"),
    },
)

ARABIC = Templates(
    persons=("آنا", "ماريا", "إيلينا", "نينا", "سارة", "جوليا", "لورا", "فيرا"),
    between_sentences=" ",
    between_names="، ",
    categories={"city": "مدينة", "country": "دولة", "currency": "عملة", "language": "لغة"},
    topics=(
        "الكلمة المكتوبة على البطاقة هي {name}.",
        "كتبت {person} كلمة جديدة في دفترها: {name}.",
        "السؤال التالي في المسابقة: {name}.",
        "عنوان هذه الصفحة هو «{name}».",
        "كانت «{name}» آخر كلمة في القائمة.",
        "كان الجميع يتحدثون عن شيء واحد فقط: {name}.",
    ),
    counts=("الكلمات في القائمة هي: {names}.", "قرأت {person} أربع كلمات بصوت عالٍ: {names}."),
    choices=("أي من هذه الأسماء اسم {category}؟", "نبحث عن اسم {category}."),
    mentions=(
        "كتبت {person} ثلاث كلمات على السبورة: {a} ثم {b} ثم {c}.",
        "بدأت المسابقة بكلمة «{a}» واستمرت بكلمة «{b}» وانتهت بكلمة «{c}».",
        "في القائمة: {a}، ثم {b}، وفي النهاية، كما طلبت {person}، {c}.",
        "الإجابة الصحيحة هي {a} وليست {b}، أما {person} فقد قالت: {c}.",
    ),
    facts={
        "birth": Fact("المدينة التي ولدت فيها {person} هي {name}.", "في أي مدينة ولدت {person}؟"),
        "work": Fact("المدينة التي تعمل فيها {person} هي {name}.", "في أي مدينة تعمل {person}؟"),
        "visit": Fact("الدولة التي تريد {person} زيارتها هي {name}.", "أي دولة تريد {person} زيارتها؟"),
        "reading": Fact("الدولة التي تقرأ عنها {person} هي {name}.", "عن أي دولة تقرأ {person}؟"),
        "collection": Fact("العملة التي تجمعها {person} هي {name}.", "أي عملة تجمع {person}؟"),
        "trip": Fact("العملة التي تأخذها {person} في رحلتها هي {name}.", "أي عملة تأخذ {person} في رحلتها؟"),
        "learning": Fact("اللغة التي تتعلمها {person} هي {name}.", "أي لغة تتعلم {person}؟"),
        "teaching": Fact("اللغة التي تدرّسها {person} هي {name}.", "أي لغة تدرّس {person}؟"),
    },
)

GERMAN = Templates(
    persons=("Anna", "Maria", "Elena", "Nina", "Sara", "Julia", "Laura", "Vera"),
    between_sentences=" ",
    between_names=", ",
    categories={"city": "eine Stadt", "country": "ein Land", "currency": "eine Währung", "language": "eine Sprache"},
    topics=(
        "Das Wort auf der Karte lautet {name}.",
        "{person} hat ein neues Wort in ihr Heft geschrieben: {name}.",
        "Nächste Frage im Quiz: {name}.",
        "Die Überschrift dieser Seite lautet „{name}“.",
        "„{name}“ war der letzte Eintrag auf der Liste.",
        "Alle sprachen nur über eines: {name}.",
    ),
    counts=("Die Wörter auf der Liste sind {names}.", "{person} las vier Wörter vor: {names}."),
    choices=("Was davon ist {category}?", "Gesucht ist {category}."),
    mentions=(
        "{person} schrieb drei Wörter an die Tafel: {a}, {b} und {c}.",
        "Das Quiz begann mit dem Wort „{a}“, ging mit „{b}“ weiter und endete mit „{c}“.",
        "Auf der Liste: {a}, dann {b} und am Ende, wie {person} es wollte, {c}.",
        "Die richtige Antwort war {a}, nicht {b}; {person} hatte geraten: {c}.",
    ),
    facts={
        "birth": Fact(
            "Die Stadt, in der {person} geboren wurde, ist {name}.", "In welcher Stadt wurde {person} geboren?"
        ),
        "work": Fact("Die Stadt, in der {person} arbeitet, ist {name}.", "In welcher Stadt arbeitet {person}?"),
        "visit": Fact("Das Land, das {person} besuchen möchte, ist {name}.", "Welches Land möchte {person} besuchen?"),
        "reading": Fact("Das Land, über das {person} liest, ist {name}.", "Über welches Land liest {person}?"),
        "collection": Fact("Die Währung, die {person} sammelt, ist {name}.", "Welche Währung sammelt {person}?"),
        "trip": Fact(
            "Die Währung, die {person} auf die Reise mitnimmt, ist {name}.",
            "Welche Währung nimmt {person} auf die Reise mit?",
        ),
        "learning": Fact("Die Sprache, die {person} lernt, ist {name}.", "Welche Sprache lernt {person}?"),
        "teaching": Fact(
            "Die Sprache, die {person} unterrichtet, ist {name}.", "Welche Sprache unterrichtet {person}?"
        ),
    },
)

GREEK = Templates(
    persons=("Άννα", "Μαρία", "Ελένη", "Νίνα", "Σάρα", "Ιουλία", "Λάουρα", "Βέρα"),
    between_sentences=" ",
    between_names=", ",
    categories={"city": "μια πόλη", "country": "μια χώρα", "currency": "ένα νόμισμα", "language": "μια γλώσσα"},
    topics=(
        "Η λέξη στην κάρτα είναι: {name}.",
        "Η {person} έγραψε μια νέα λέξη στο τετράδιό της: {name}.",
        "Επόμενη ερώτηση του κουίζ: {name}.",
        "Ο τίτλος αυτής της σελίδας είναι «{name}».",
        "Το «{name}» ήταν η τελευταία εγγραφή στη λίστα.",
        "Όλοι μιλούσαν μόνο για ένα πράγμα: {name}.",
    ),
    counts=("Οι λέξεις στη λίστα είναι: {names}.", "Η {person} διάβασε δυνατά τέσσερις λέξεις: {names}."),
    choices=("Ποιο από αυτά είναι {category};", "Ψάχνουμε {category}."),
    mentions=(
        "Η {person} έγραψε τρεις λέξεις στον πίνακα: {a}, {b} και {c}.",
        "Το κουίζ άρχισε με τη λέξη «{a}», συνέχισε με «{b}» και τελείωσε με «{c}».",
        "Στη λίστα: {a}, μετά {b} και στο τέλος, όπως ζήτησε η {person}, {c}.",
        "Η σωστή απάντηση ήταν: {a}, όχι {b}· η {person} είχε μαντέψει: {c}.",
    ),
    facts={
        "birth": Fact("Η πόλη όπου γεννήθηκε η {person} είναι: {name}.", "Σε ποια πόλη γεννήθηκε η {person};"),
        "work": Fact("Η πόλη όπου εργάζεται η {person} είναι: {name}.", "Σε ποια πόλη εργάζεται η {person};"),
        "visit": Fact(
            "Η χώρα που θέλει να επισκεφθεί η {person} είναι: {name}.", "Ποια χώρα θέλει να επισκεφθεί η {person};"
        ),
        "reading": Fact(
            "Η χώρα για την οποία διαβάζει η {person} είναι: {name}.", "Για ποια χώρα διαβάζει η {person};"
        ),
        "collection": Fact("Το νόμισμα που συλλέγει η {person} είναι: {name}.", "Ποιο νόμισμα συλλέγει η {person};"),
        "trip": Fact(
            "Το νόμισμα που παίρνει η {person} στο ταξίδι της είναι: {name}.",
            "Ποιο νόμισμα παίρνει η {person} στο ταξίδι της;",
        ),
        "learning": Fact("Η γλώσσα που μαθαίνει η {person} είναι: {name}.", "Ποια γλώσσα μαθαίνει η {person};"),
        "teaching": Fact("Η γλώσσα που διδάσκει η {person} είναι: {name}.", "Ποια γλώσσα διδάσκει η {person};"),
    },
)

SPANISH = Templates(
    persons=("Ana", "María", "Elena", "Nina", "Sara", "Julia", "Laura", "Vera"),
    between_sentences=" ",
    between_names=", ",
    categories={"city": "una ciudad", "country": "un país", "currency": "una moneda", "language": "un idioma"},
    topics=(
        "La palabra de la tarjeta es {name}.",
        "{person} apuntó una palabra nueva en su cuaderno: {name}.",
        "Siguiente pregunta del concurso: {name}.",
        "El título de esta página es «{name}».",
        "«{name}» era la última entrada de la lista.",
        "Todos hablaban de una sola cosa: {name}.",
    ),
    counts=("Las palabras de la lista son {names}.", "{person} leyó cuatro palabras en voz alta: {names}."),
    choices=("¿Cuál de estos nombres es el de {category}?", "Buscamos el nombre de {category}."),
    mentions=(
        "{person} escribió tres palabras en la pizarra: {a}, {b} y {c}.",
        "El concurso empezó con la palabra «{a}», siguió con «{b}» y terminó con «{c}».",
        "En la lista: {a}, luego {b} y al final, como pidió {person}, {c}.",
        "La respuesta correcta era {a}, no {b}; {person} había dicho: {c}.",
    ),
    facts={
        "birth": Fact("La ciudad donde nació {person} es {name}.", "¿En qué ciudad nació {person}?"),
        "work": Fact("La ciudad donde trabaja {person} es {name}.", "¿En qué ciudad trabaja {person}?"),
        "visit": Fact("El país que {person} quiere visitar es {name}.", "¿Qué país quiere visitar {person}?"),
        "reading": Fact("El país sobre el que lee {person} es {name}.", "¿Sobre qué país lee {person}?"),
        "collection": Fact("La moneda que colecciona {person} es: {name}.", "¿Qué moneda colecciona {person}?"),
        "trip": Fact("La moneda que {person} lleva de viaje es: {name}.", "¿Qué moneda lleva {person} de viaje?"),
        "learning": Fact("El idioma que aprende {person} es: {name}.", "¿Qué idioma aprende {person}?"),
        "teaching": Fact("El idioma que enseña {person} es: {name}.", "¿Qué idioma enseña {person}?"),
    },
)

HINDI = Templates(
    persons=("ऐना", "मारिया", "एलेना", "नीना", "सारा", "जूलिया", "लॉरा", "वेरा"),
    between_sentences=" ",
    between_names=", ",
    categories={"city": "शहर", "country": "देश", "currency": "मुद्रा", "language": "भाषा"},
    topics=(
        "कार्ड पर लिखा शब्द है {name}।",
        "{person} ने अपनी कॉपी में एक नया शब्द लिखा: {name}।",
        "प्रश्नोत्तरी का अगला सवाल: {name}।",
        "इस पन्ने का शीर्षक है “{name}”।",
        "सूची में आख़िरी नाम “{name}” था।",
        "सब लोग बस एक ही चीज़ के बारे में बात कर रहे थे: {name}।",
    ),
    counts=("सूची के शब्द हैं: {names}।", "{person} ने चार शब्द ज़ोर से पढ़े: {names}।"),
    choices=("इनमें से कौन-सा {category} का नाम है?", "हम एक {category} का नाम ढूँढ रहे हैं।"),
    mentions=(
        "{person} ने बोर्ड पर तीन शब्द लिखे: {a}, {b} और {c}।",
        "प्रश्नोत्तरी “{a}” शब्द से शुरू हुई, “{b}” से आगे बढ़ी और “{c}” पर ख़त्म हुई।",
        "सूची में: {a}, फिर {b} और अंत में, जैसा {person} ने कहा था, {c}।",
        "सही जवाब {a} था, {b} नहीं; {person} ने सोचा था: {c}।",
    ),
    facts={
        "birth": Fact("{person} का जन्म जिस शहर में हुआ, वह है {name}।", "{person} का जन्म किस शहर में हुआ?"),
        "work": Fact("{person} जिस शहर में काम करती है, वह है {name}।", "{person} किस शहर में काम करती है?"),
        "visit": Fact("{person} जिस देश में जाना चाहती है, वह है {name}।", "{person} किस देश में जाना चाहती है?"),
        "reading": Fact("{person} जिस देश के बारे में पढ़ रही है, वह है {name}।", "{person} किस देश के बारे में पढ़ रही है?"),
        "collection": Fact("{person} जो मुद्रा जमा करती है, वह है {name}।", "{person} कौन-सी मुद्रा जमा करती है?"),
        "trip": Fact("{person} यात्रा में जो मुद्रा ले जा रही है, वह है {name}।", "{person} यात्रा में कौन-सी मुद्रा ले जा रही है?"),
        "learning": Fact("{person} जो भाषा सीख रही है, वह है {name}।", "{person} कौन-सी भाषा सीख रही है?"),
        "teaching": Fact("{person} जो भाषा पढ़ाती है, वह है {name}।", "{person} कौन-सी भाषा पढ़ाती है?"),
    },
)

RUSSIAN = Templates(
    persons=("Анна", "Мария", "Елена", "Нина", "Сара", "Юлия", "Лаура", "Вера"),
    between_sentences=" ",
    between_names=", ",
    categories={"city": "город", "country": "страна", "currency": "валюта", "language": "язык"},
    topics=(
        "Слово на карточке: {name}.",
        "{person} записала в тетрадь новое слово: {name}.",
        "Следующий вопрос викторины: {name}.",
        "Заголовок этой страницы — «{name}».",
        "Последним в списке стояло «{name}».",
        "Все говорили только об одном: {name}.",
    ),
    counts=("Слова в списке: {names}.", "{person} прочитала вслух четыре слова: {names}."),
    choices=("Что из этого — {category}?", "Мы ищем слово из категории «{category}»."),
    mentions=(
        "{person} написала на доске три слова: {a}, {b} и {c}.",
        "Викторина началась словом «{a}», продолжилась словом «{b}» и закончилась словом «{c}».",
        "В списке: {a}, затем {b}, а в конце, как просила {person}, — {c}.",
        "Правильный ответ — {a}, а не {b}; {person} предположила: {c}.",
    ),
    facts={
        "birth": Fact("Город, в котором родилась {person}, — {name}.", "В каком городе родилась {person}?"),
        "work": Fact("Город, в котором работает {person}, — {name}.", "В каком городе работает {person}?"),
        "visit": Fact("Страна, которую хочет посетить {person}, — {name}.", "Какую страну хочет посетить {person}?"),
        "reading": Fact("Страна, о которой читает {person}, — {name}.", "О какой стране читает {person}?"),
        "collection": Fact("Валюта, которую собирает {person}, — {name}.", "Какую валюту собирает {person}?"),
        "trip": Fact("Валюта, которую {person} берёт в поездку, — {name}.", "Какую валюту {person} берёт в поездку?"),
        "learning": Fact("Язык, который изучает {person}, — {name}.", "Какой язык изучает {person}?"),
        "teaching": Fact("Язык, который преподаёт {person}, — {name}.", "Какой язык преподаёт {person}?"),
    },
)

CHINESE = Templates(
    persons=("安娜", "玛丽亚", "埃琳娜", "尼娜", "萨拉", "朱莉娅", "劳拉", "薇拉"),
    between_sentences="",
    between_names="、",
    categories={"city": "城市", "country": "国家", "currency": "货币", "language": "语言"},
    topics=(
        "卡片上的词是{name}。",
        "{person}在笔记本上写了一个新词：{name}。",
        "测验的下一题：{name}。",
        "这一页的标题是“{name}”。",
        "“{name}”是清单上的最后一项。",
        "大家只谈论一件事：{name}。",
    ),
    counts=("清单上的词是：{names}。", "{person}大声念了四个词：{names}。"),
    choices=("下面哪一个是{category}？", "我们要找一个{category}的名称。"),
    mentions=(
        "{person} 在 黑板 上 写 了 三 个 词：{a}、{b} 和 {c}。",
        "测验 以“{a}”开始，接着 是“{b}”，最后 是“{c}”。",
        "清单 上 有：{a}，然后 是 {b}，最后 按 {person} 的 要求 是 {c}。",
        "正确 答案 是 {a}，不 是 {b}；{person} 猜 的 是：{c}。",
    ),
    facts={
        "birth": Fact("{person}出生的城市是{name}。", "{person}出生在哪个城市？"),
        "work": Fact("{person}工作的城市是{name}。", "{person}在哪个城市工作？"),
        "visit": Fact("{person}想去的国家是{name}。", "{person}想去哪个国家？"),
        "reading": Fact("{person}正在了解的国家是{name}。", "{person}正在了解哪个国家？"),
        "collection": Fact("{person}收集的货币是{name}。", "{person}收集哪种货币？"),
        "trip": Fact("{person}旅行时带的货币是{name}。", "{person}旅行时带哪种货币？"),
        "learning": Fact("{person}正在学的语言是{name}。", "{person}正在学哪种语言？"),
        "teaching": Fact("{person}教的语言是{name}。", "{person}教哪种语言？"),
    },
)

TEMPLATES: Mapping[str, Templates] = {
    "en": ENGLISH,
    "ar": ARABIC,
    "de": GERMAN,
    "el": GREEK,
    "es": SPANISH,
    "hi": HINDI,
    "ru": RUSSIAN,
    "zh": CHINESE,
}
"""BCP-47 code -> the sentences of that language."""
