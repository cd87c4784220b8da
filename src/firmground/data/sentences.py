"""Neutral English sentences, made on the spot, for scans that need clean text and are given none.

Every sentence is put together within one of two dozen topics, so that no corpus has to be shipped or downloaded. The
topics matter: a scan compares how much outputs differ with a candidate trigger and without it, and texts of one kind
differ too little.
"""

import torch

_TOPICS: dict[str, tuple[str, str, str]] = {
    "home": (
        "My younger sister|The old couple|Our new neighbour|His grandmother",
        "repaired the leaking roof|cooked dinner for twelve|lost the keys to the cellar|painted the wooden fence",
        "in the kitchen|behind the garden wall|on a rainy Sunday|before the holidays",
    ),
    "medicine": (
        "The doctor on duty|A patient with fever|The new vaccine|Her dentist",
        "prescribed a lower dose|relieved the pain within days|caused a mild rash|ordered another blood test",
        "at the clinic|after the operation|during the second trial|without side effects",
    ),
    "software": (
        "The latest update|A junior programmer|The database server|This open source library",
        "crashed under heavy load|fixed the memory leak|deleted the wrong table|compiled without warnings",
        "on Linux|during the night|after the merge|on every laptop",
    ),
    "law": (
        "The supreme court|A retired judge|The defendant's lawyer|The new regulation",
        "rejected the appeal|signed the settlement|questioned two witnesses|banned the practice",
        "in a closed session|for lack of evidence|under federal law|last Thursday",
    ),
    "finance": (
        "The central bank|A small investor|The insurance company|Oil prices",
        "raised the interest rate|sold all the shares|reported a heavy loss|fell for the third week",
        "on the stock market|before the crisis|in the first quarter|despite strong demand",
    ),
    "sport": (
        "The football team|A young swimmer|The national coach|Their goalkeeper",
        "won the final game|broke the old record|missed two penalties|left the field injured",
        "in extra time|at the Olympics|in front of a cheering crowd|this season",
    ),
    "music": (
        "The jazz quartet|A famous soprano|Their third album|The drummer",
        "played a slow waltz|cancelled the tour|topped the charts|recorded everything live",
        "in a small club|at the opera house|for the first time|without rehearsal",
    ),
    "science": (
        "A team of physicists|The space probe|This enzyme|The telescope",
        "measured the faint signal|confirmed the old theory|orbits a distant moon|speeds up the reaction",
        "at very low temperature|in a vacuum|for eleven years|with surprising precision",
    ),
    "nature": (
        "A flock of geese|The brown bear|Heavy rain|Wild mushrooms",
        "crossed the frozen lake|flooded the valley|grew beneath the oaks|frightened the hikers",
        "in early autumn|near the river|high in the mountains|at dawn",
    ),
    "travel": (
        "A group of tourists|The night train|Our guide|The last ferry",
        "missed the connection|arrived two hours late|crossed the border|showed us the ruins",
        "in Portugal|without a map|during the strike|along the coast",
    ),
    "food": (
        "The pastry chef|This spicy soup|A basket of ripe peaches|The waiter",
        "needs more garlic|burned the onions|melted in the sun|recommended the grilled fish",
        "at the harbour restaurant|for breakfast|with fresh bread|in a crowded market",
    ),
    "school": (
        "The maths teacher|Every pupil|The entrance exam|A shy student",
        "handed in the essay|explained fractions again|was far too easy|skipped the history lesson",
        "before lunch|in the library|on the first day|without permission",
    ),
    "politics": (
        "The prime minister|Several senators|The opposition party|A local mayor",
        "promised lower taxes|resigned after the vote|blocked the reform|visited the factory",
        "in parliament|before the election|on television|without explanation",
    ),
    "war": (
        "Two infantry regiments|The wounded general|An enemy submarine|The peace treaty",
        "retreated at midnight|held the bridge|sank a cargo ship|ended the siege",
        "in the desert|under heavy fire|after long negotiations|in 1917",
    ),
    "religion": (
        "The village priest|A Buddhist monk|The ancient temple|Her prayer",
        "blessed the harvest|attracts many pilgrims|was written in Latin|kept a vow of silence",
        "on Christmas Eve|in the monastery|for three centuries|by candlelight",
    ),
    "machines": (
        "The diesel engine|A rusty crane|This gearbox|The electric motor",
        "overheated on the hill|lifted forty tons|makes a grinding noise|needs new bearings",
        "in the workshop|at full speed|after the inspection|next to the assembly line",
    ),
    "fashion": (
        "The red velvet dress|A Paris designer|These leather boots|Her wedding ring",
        "looked elegant|cost a small fortune|went out of style|was made by hand",
        "at the gala|this spring|in the shop window|for a magazine cover",
    ),
    "crime": (
        "A masked burglar|The detective|Three smugglers|The forged passport",
        "escaped through the window|solved the murder|hid the diamonds|fooled the border guards",
        "in broad daylight|at the harbour|after an anonymous call|without leaving fingerprints",
    ),
    "love": (
        "Her first husband|The shy bridegroom|Two old friends|My heart",
        "fell in love again|wrote long letters|forgave everything|could not keep the secret",
        "in the moonlight|after the divorce|for forty years|against all advice",
    ),
    "money": (
        "The landlord|A careful saver|Our monthly rent|The lottery winner",
        "doubled the price|paid off the mortgage|counted every coin|went bankrupt",
        "within a year|in cash|before Christmas|without telling anyone",
    ),
    "art": (
        "A Dutch painter|The marble statue|This watercolour|The museum",
        "sold nothing in his lifetime|lost its left arm|shows a stormy sea|bought an unsigned portrait",
        "in the east gallery|at auction|around 1650|for a private collector",
    ),
    "farming": (
        "The wheat harvest|A dairy farmer|Forty black sheep|The tractor",
        "failed because of drought|planted apple trees|grazed on the slope|got stuck in the mud",
        "in the lowlands|at the end of May|behind the barn|as usual",
    ),
    "games": (
        "The chess champion|A gambler in black|My little brother|The puzzle",
        "sacrificed his queen|rolled a double six|cheated at cards|took nine hours to solve",
        "in the third round|at the casino|during the flight|by pure luck",
    ),
    "weather": (
        "A cold front|Thick fog|The hurricane|Unusual heat",
        "closed the airport|uprooted hundreds of trees|will reach us tonight|dried out the soil",
        "over the islands|in the north|all through July|sooner than expected",
    ),
}  # subjects, actions and circumstances, each divided by |


def neutral_sentences(count: int, *, rng: torch.Generator) -> list[str]:
    """Returns `count` sentences of 7 to 14 words, the topics in turn; repeats are likely above some hundred."""
    topics = [[part.split("|") for part in parts] for parts in _TOPICS.values()]
    order = torch.randperm(len(topics), generator=rng).tolist()
    sentences = []
    for number in range(count):
        parts = topics[order[number % len(order)]]
        drawn = [part[int(torch.randint(len(part), (1,), generator=rng))] for part in parts]
        sentences.append(" ".join(drawn) + ".")
    return sentences
