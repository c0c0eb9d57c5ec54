"""Names that nobody has, and names that are also words."""

STARTS = (
    *("Ba", "Be", "Bo", "Da", "De", "Do", "Fa", "Fe", "Fo", "Ga", "Gi", "Go", "Ja", "Je", "Jo", "Ka", "Ke", "Ko", "La"),
    *("Le", "Lo", "Lu", "Ma", "Me", "Mi", "Na", "Ne", "No", "Pa", "Pe", "Po", "Ra", "Re", "Ro", "Sa", "Se", "So", "Ta"),
    *("Te", "To", "Va", "Ve", "Vo", "Za", "Ze", "Zo"),
)
ENDS = ("lvo", "ndrul", "rzia", "skel", "mbiro", "tvan")
INVENTED = tuple(start + end for end in ENDS for start in STARTS)
"""276 first names that can be said in most languages and mean nothing in French or English."""

# First words of names, in folded spelling, that are far more often words: alone they are taken for a name only with a
# capital in the middle of a sentence.
EVERYDAY = frozenset(
    (
        # French first names and words at once
        *("aimé", "aimée", "ambre", "ange", "avril", "blanche", "brice", "cerise", "chance", "claire"),
        *("clémence", "clément", "colombe", "constance", "cyprès"),
        *("céleste", "dieudonné", "désiré", "désirée", "fleur"),
        *("florence", "france", "franc", "gentil", "honoré", "iris", "jade", "jasmin", "juste", "lune", "lys"),
        *("marine", "marin", "marguerite", "mercedes", "modeste", "neige", "noël", "océan", "olive"),
        *("parfait", "pascal", "perle", "pie", "pierre", "placide", "prune", "prudence", "reine", "rémi", "roman"),
        *("rose", "rubis", "sage", "soleil", "sylvestre", "toussaint", "victoire", "violette"),
        # English first names and words at once
        *("amber", "angel", "april", "art", "august", "autumn", "ben", "bill", "bob", "bud", "buddy", "candy", "carol"),
        *("chase", "chip", "chuck", "cliff", "clay", "crystal", "daisy", "dale", "dawn", "dean", "dick", "dot", "drew"),
        *("duke", "earl", "eve", "faith", "fern", "frank", "gene", "ginger", "glen", "grace", "grant", "guy", "hazel"),
        *("harry", "heath", "heather", "holly", "honey", "hope", "hunter"),
        *("ivy", "jack", "jay", "jean", "jewel", "joy"),
        *("june", "king", "lance", "lane", "lily", "major", "mark", "mason", "max", "may", "melody", "mercy"),
        *("miles", "misty", "norm", "olive", "pat", "patience", "paris", "pearl", "penny", "peter", "pierce"),
        *("poppy", "prince", "queen", "reed", "rich", "river", "rob", "robin", "rocky", "rod", "rowan", "ruby"),
        *("rusty", "sally", "sandy", "scarlet", "sky", "skip", "sterling", "stew", "sue", "summer", "sunny"),
        *("trace", "van", "wade", "ward", "warren", "will", "willow", "woody", "young", "zip"),
        # what people call each other in an address book, and titles
        *("maman", "papa", "mamie", "mamy", "papi", "papy", "tata", "tonton", "tatie", "cousin", "cousine", "frère"),
        *("sœur", "soeur", "oncle", "tante", "parrain", "marraine"),
        *("chéri", "chérie", "bébé", "amour", "coeur", "cœur"),
        *("mon", "ma", "mes", "le", "la", "les", "un", "une", "de", "du", "des", "dr", "docteur", "prof", "monsieur"),
        *("mme", "madame", "mr", "mrs", "ms", "miss", "mister", "sir", "lady", "mum", "mom", "mam", "dad", "daddy"),
        *("mummy", "mommy", "gran", "granny", "grandma", "grandpa", "nan", "nana", "aunt", "auntie", "uncle", "bro"),
        *("brother", "sis", "sister", "baby", "babe", "love", "boss", "chef", "coach", "the", "my", "our", "a", "an"),
        *("big", "little", "petit", "petite", "grand", "gros", "vieux", "old", "new", "saint", "san", "el", "al"),
        # what companies, groups and bots are called
        *("info", "infos", "service", "services", "support", "client", "orange", "free", "apple", "google", "amazon"),
        *("facebook", "instagram", "telegram", "whatsapp", "discord", "bot"),
        *("admin", "system", "user", "unknown", "me"),
        *("you", "team", "groupe", "group", "famille", "family", "pizza", "taxi", "hotel", "hôtel", "école", "school"),
        *("plombier", "voisin", "voisine", "proprio", "médecin", "dentiste"),
        *("garage", "banque", "bank", "post", "home"),
        *("contact", "deleted", "former", "member", "membre", "account", "compte", "no", "not", "ok", "moi", "toi"),
    )
)
