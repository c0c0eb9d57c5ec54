"""What the invented people talk about, in French. The grammar of a script is described in `people.py`."""
# ruff: noqa: E501  # a move and all its answers stand on one line each, so that a script reads as a conversation

SLOTS = {
    "place": "au marché, à la piscine, au parc, à la bibliothèque, au ciné, chez Lou, au café des Ormes, à la plage, "
    "au musée, à la patinoire, au bord du canal, à la brocante, au jardin botanique, à la salle d'escalade, en ville",
    "when": "ce soir, demain, samedi, dimanche, vendredi soir, demain midi, jeudi, cet après-midi, mardi soir, "
    "ce week-end, lundi midi, mercredi après-midi, samedi matin",
    "past": "hier soir, hier, samedi, dimanche, lundi soir, avant-hier, vendredi soir",
    "later": "la semaine prochaine, dimanche prochain, le mois prochain, après les vacances, lundi, en fin de semaine, "
    "début {month}, fin {month}, dans dix jours",
    "month": "janvier, février, mars, avril, mai, juin, juillet, août, septembre, octobre, novembre, décembre",
    "hour": "{h}h, {h}h15, {h}h30, {h}h45, {h}h10",
    "h": "8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21",
    "n": "2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 40",
    "price": "12, 15, 18, 24, 28, 35, 42, 55, 60, 75, 90, 120",
    "dish": "une quiche aux poireaux, des lasagnes, un curry de pois chiches, une tarte au citron, des crêpes, "
    "un risotto aux champignons, une soupe de courge, des galettes, un gratin, des raviolis, une ratatouille, "
    "un couscous, des pâtes au pesto, une omelette, un tajine de légumes, un crumble",
    "flavour": "du fromage de chèvre, du citron, de la cannelle, des noix, du miel, du gingembre, des herbes, "
    "du piment doux, des olives, du romarin, des tomates séchées",
    "friend": "Lou, Sacha, Mélie, Barnabé, Romane, Gaspard, Swann, Colette, Kilian, Capucine, Théodule, Zélie, Noé, Faustin",
    "chore": "un rendez-vous chez le dentiste, cours jusqu'à {hour}, une réunion à {hour}, le ménage à finir, "
    "mon train à {hour}, un dossier à rendre, mes parents à la maison, une lessive énorme, le plombier à {hour}, "
    "une répétition, un anniversaire chez {friend2}, la voiture à déposer",
    "item": "une bouteille, un dessert, des chips, ma guitare, un jeu de cartes, une couverture, mon enceinte, "
    "un parapluie, le ballon, un thermos, des biscuits, mon appareil photo",
    "landmark": "la fontaine, la boulangerie, la gare, l'arrêt du tram, l'église, le kiosque, la pharmacie, le pont, "
    "la mairie, le manège",
    "show": "Les Marées basses, Cinq Hivers, L'Atelier rouge, La Ligne de crête, Mille Lanternes, Brume sur Vaubrac, "
    "Le Phare d'Ostrel, Nuit blanche à Kervan, Les Voisins du sixième, Zéro degré",
    "part": "la fin, le début, l'épisode {n}, la scène du train, le personnage de la mère, la musique, l'histoire, "
    "le dernier quart d'heure, les dialogues",
    "opinion": "magnifique, un peu long, hyper drôle, vraiment triste, très bien filmé, bizarre, génial, "
    "pas terrible, émouvant, assez lent, incroyable",
    "band": "Velours Gris, Les Tramways, Octobre Noir, Papier Peint, Radio Mirabelle, Les Cousins d'Ys, Sel et Cendre",
    "city": "Lyon, Nantes, Lille, Brest, Marseille, Strasbourg, Rennes, Bordeaux, Annecy, Grenoble, Toulouse, Dijon",
    "transport": "le train, le bus, la voiture de {friend2}, un covoiturage, le train de nuit, mon vélo",
    "subject": "stats, droit, histoire, biologie, anglais, chimie, socio, philo, compta, dessin, géographie",
    "feeling": "épuisant, tranquille, intense, chouette, un peu stressant, interminable, très calme, mouvementé",
    "pet": "le chat, le chien, le lapin, la tortue, la perruche, le furet, le cochon d'Inde",
    "mischief": "a mangé {dish}, a renversé la plante, dort sur mon clavier, a volé une chaussette, "
    "s'est caché sous le lit, a griffé le canapé, a ouvert le placard, me suit partout",
    "sport": "courir, nager, grimper, faire du vélo, jouer au badminton, faire du yoga, jouer au foot, ramer, danser",
    "body": "le genou, le dos, l'épaule, la cheville, la tête, le ventre, la gorge, le poignet",
    "present": "un livre de cuisine, une écharpe, des boucles d'oreilles, une plante, un puzzle, un carnet, "
    "une affiche de {band}, un bon pour le spa, une théière, un jeu de société, des places pour {band}",
    "lost": "mes clés, mon écouteur gauche, mon badge, ma gourde, mon carnet, mon bonnet, mon chargeur, mes lunettes",
    "spot": "sous le canapé, dans ton sac, chez {friend}, sur le frigo, dans la voiture, au fond du tiroir, "
    "dans la poche du manteau, à côté de l'évier, derrière le radiateur",
    "weather": "il pleut, il fait un soleil incroyable, il y a un vent terrible, il neige, il fait {n} degrés, "
    "il y a de l'orage, il y a du brouillard",
    "room": "la cuisine, ma chambre, le salon, l'entrée, la salle de bain, le balcon, le bureau",
    "colour": "en vert sauge, en bleu, en jaune, en blanc cassé, en terracotta, en gris, en rose pâle",
    "book": "Les Heures d'ardoise, Un été chez Malvina, Le Cartographe, Sous la glace, La Femme du quai, Trois fois rien",
    "mail": "lou.p, sacha77, melie.k, barnabe.g, swann, colette.b, kilian.ar, zelie",
    # Numbers and addresses reserved for fiction and examples: they belong to nobody.
    "digits": "17, 23, 31, 40, 52, 68, 75, 89, 94",
    "job": "le stage, le rapport, l'entretien, le projet de groupe, la présentation, le nouveau poste, le mémoire",
}

GREETINGS = """
? Salut ! / Ça va ? | Coucou / Tu vas bien ? | Bonjour ! / Comment tu vas ? | Hello / Quoi de neuf ?
+ Ça va, et toi ? | Oui super, et toi ? / C'était {feeling} aujourd'hui | Tranquille et toi ? / {weather} ici
  Bien aussi, merci | Ça va / Semaine {feeling} mais ça va | Pareil / Chez moi {weather}
+ Un peu de fatigue / J'ai {chore} {when} | Bof / J'ai mal dormi, seulement {n} heures | Moyen / J'ai eu {chore}
  Oh courage / Repose-toi {when} | Mince / Tu veux en parler ? | Aïe / Ça ira mieux {later}
"""

GOODBYES = """
? Bon, je file / J'ai {chore} | Je te laisse / Je pars {place} | Allez, je vais dormir / Je me lève à {hour}
+ À plus ! / Bisous | Bonne soirée ! | Ça marche, à {later} | File ! / Dis bonjour à {friend}
"""

TOPICS = """
? Tu viens {place} {when} ? | Ça te dit d'aller {place} {when} ? | Je vais {place} {when} avec {friend} / Tu veux venir ?
+ Oui carrément / On se retrouve à quelle heure ? | Avec plaisir ! / C'est à quelle heure ? | Oui pour {place} / Je passe te prendre ?
  Vers {hour} / J'amène {item} | {hour} devant {landmark} ? / Prends {item} si tu peux | Disons {hour} / {friend} arrive un peu après
  Parfait pour {hour} / Je préviens {friend} | Ça marche / Je ramène {item2} alors | {hour}, c'est noté / J'ai trop hâte
+ Ah {when} je ne peux pas / J'ai {chore} | Pas {when} / J'ai déjà {chore} | J'aurais adoré mais j'ai {chore}
  Dommage / On remet ça {later} ? | Pas de souci / Tu préfères {later} ? | Mince / {friend} sera triste
  Oui plutôt {later} / Je te redis pour l'heure | {later} c'est parfait / Et cette fois j'amène {item} | Oui, {later}, promis
+ Peut-être / Ça dépend de {friend} | Je ne sais pas encore / J'ai {chore} avant | Ça finit à quelle heure ? / Je travaille tôt
  Dis-moi avant {hour} / Comme ça je réserve | Pas de stress / On y sera jusqu'à {hour} | Même pour une heure, ça ferait plaisir à {friend}
  D'accord, je te dis avant {hour} | Bon ok je passe vers {hour} | Je demande à {friend} et je te redis

? On mange quoi {when} ? | Tu cuisines quoi {when} ? | J'ai faim / Une idée pour {when} ?
+ Je pensais faire {dish} / Avec {flavour} | {dish} ? / Il me reste {flavour} | On tente {dish} ? / {friend} m'a donné la recette
  Oh oui, {dish} / Je ramène {flavour2} | Miam / Tu mets {flavour2} dedans ? | {dish} ça prend combien de temps ?
  {n} minutes au four et c'est prêt | Oui avec {flavour2} c'est encore meilleur | Viens vers {hour} et on cuisine ensemble
+ Aucune idée / Le frigo est vide | Rien envie de faire / On commande ? | Je mange chez {friend} {when}
  On commande {dish} alors ? / Ça fait {price} euros | Je peux apporter {dish} | Il me reste {dish} si tu veux
  Oui, {dish}, parfait / Je te rembourse | Bonne idée / {hour} chez moi ? | Tu me sauves / J'apporte {item}

? Tu as vu {show} ? | J'ai enfin fini {show} | {friend} m'a conseillé {show} / Ça vaut le coup ?
+ Oui ! / J'ai trouvé {part} {opinion} | Oui avec {friend} / {part}, c'est {opinion} | J'ai adoré {show} / Surtout {part}
  Ah oui, {part} c'était {opinion} | Pas d'accord / {part}, c'est {opinion2} | Et {part2} alors ? / J'ai trouvé ça {opinion2}
  Oui mais {part2} reste {opinion} | On regarde la suite {when} ? / J'apporte {item} | Tu devrais essayer {show2} aussi
+ Pas encore / J'en suis à l'épisode {n} | Non, c'est bien ? | Non, je regarde {show2} en ce moment
  Oui, {part} c'est {opinion} / Tu vas aimer | Je te préviens, {part} c'est {opinion} | On le regarde ensemble {when} ?
  Ok je commence {when} / Ne me raconte rien | D'accord pour {when} / Je prends {item} | Ça me tente / {friend} disait que c'était {opinion2}

? Comment s'est passé l'examen en {subject} ? | Alors, {subject} ? | Tu as eu ta note en {subject} ?
+ Mieux que prévu ! / Je crois avoir {n} bonnes réponses | J'ai eu {h} sur 20 | Bien / La partie sur {part} était facile
  Bravo ! / On fête ça {when} ? | Quelle fierté / {friend} aussi va être content | Tu vois, tu stressais pour rien
  Oui fêtons ça {place} | Merci / Maintenant il reste {subject2} | Merci ! / C'est grâce à tes fiches en {subject}
+ Horrible / J'ai oublié {n} questions | Une catastrophe / Rien compris à la question {n} | Pas fameux / J'avais révisé {subject2} à la place
  Oh non / Il y a un rattrapage {later} ? | Courage / Je peux t'aider en {subject} {when} | Ça arrive / {friend} aussi a tout raté
  Oui {later} / Je vais réviser {subject} sérieusement | Merci, {when} à {hour} ça t'irait ? | Je vais manger {dish} pour oublier

? Tu arrives à quelle heure à {city} ? | Tu prends quoi pour aller à {city} ? | On part à {city} {later} ?
+ À {hour} si {transport} est à l'heure | {transport}, départ {hour} | Vers {hour} / Je prends {transport}
  Je viens te chercher à {hour} / Attends-moi devant {landmark} | Super / On ira {place} après | Combien ça coûte ?
  {price} euros aller-retour | Merci ! / J'aurai {item} avec moi | D'accord, devant {landmark}
+ J'ai raté {transport} / Le suivant est à {hour} | {n} minutes de retard, comme toujours | Je suis encore à {city2} / {weather}
  Pas grave / Je t'attends {place} | Quelle galère / Préviens {friend} | Ne cours pas, on mange à {hour}
  Ok je préviens {friend} / Gardez-moi {dish} | Merci / J'arrive vers {hour} | Je suis dedans, enfin

? {weather} chez toi aussi ? | On va se promener ? / Ici {weather} | Tu as vu le temps ? / {weather}
+ Oui, {weather} aussi ici / On va {place} ? | Ici {weather2} | Non, ici {weather2} / Je reste dans {room}
  Alors on reste au chaud et on fait {dish} | On tente quand même {place} ? | Ça devrait changer {when}
  D'accord, j'apporte {item} | Oui mais je prends {item} | Non, j'ai {chore}

? C'est quand l'anniversaire de {friend} ? / On offre quoi ? | Une idée de cadeau pour {friend} ? | {friend} fête ses {n} ans {when}
+ {present} ? / Ça coûte {price} euros | Je pensais à {present} | Pourquoi pas {present} ? / Il y en a {place}
  Bonne idée / On partage ? | {friend} a déjà {present} je crois | {price} euros c'est beaucoup / Plutôt {present2} ?
  Ok pour {present2} / Je m'en occupe {when} | Oui, ça fait {n} euros chacun | Alors {present2} / Je passe {place} {when}
+ Aucune idée / {friend} a déjà tout | Il faut demander à {friend2} | Un repas {place} ?
  {friend2} propose {present} | Et {present}, tu en penses quoi ? | On peut aussi faire {dish}
  {present}, oui, très bien | Super / Je prends aussi {present2} | Parfait, et {friend2} apporte {item}

? Tu veux {sport} {when} ? | J'ai commencé à {sport} / Tu essaies avec moi ? | Tu vas toujours {sport} {when} ?
+ Oui ! / {n} kilomètres la dernière fois | Oui mais doucement / J'ai mal à {body} | Toujours envie de {sport} / {hour} ?
  {hour} devant {landmark} | Attention à {body} quand même | {friend} vient aussi
  Parfait, {hour} / Je prends {item} | Promis, je m'étire avant | Dis à {friend} d'apporter {item}
+ Impossible, je me suis fait mal à {body} | La flemme / {weather} | Plus le temps, j'ai {chore}
  Oh non / Tu as vu un médecin ? | Allez, juste {n} minutes | {later} alors ?
  Rendez-vous {when} à {hour} | Bon d'accord, {n} minutes et après {dish} | Oui {later}, quand {body} ira mieux

? Tu ne devineras jamais ce que {pet} a fait | {pet} {mischief} encore une fois | Regarde {pet} !
+ Quoi encore ? / La dernière fois c'était {lost} | Non ! / Raconte | Oh, {pet} me manque
  {pet} {mischief} / J'ai mis {n} minutes à comprendre | {mischief}, devant {friend} en plus | Et après {pet} {mischief2}
  Pauvre {friend} / Et pauvre {pet} | Tu as pris une photo ? | {pet} est un génie

? Tu vas au concert de {band} ? | {band} joue {place} {when} | J'ai deux places pour {band} / Tu viens ?
+ Oui ! / C'est {price} euros | Évidemment / J'adore leur dernier album | Avec qui ? / {friend} y va aussi
  Rendez-vous à {hour} devant {landmark} | {price} euros la place, ça te va ? | {friend} conduit
  Ok pour {hour} / J'amène {item} | Je te fais un virement de {price} euros | Hâte de voir {band}
+ Je ne connais pas {band} / Ça ressemble à quoi ? | Trop cher, {price} euros | {when} j'ai {chore}
  Un peu comme {band2} mais {opinion} | Écoute l'album, c'est {opinion} | Dommage / {band2} passe {later}
  J'écoute {when} et je te dis | {band2} oui ! / Prends-moi une place | Bon, à {n} euros je viens

? On choisit quoi pour {when} ?¶A: {dish}¶B: {dish2} | Vote pour {when} :¶A: {place}¶B: {place2} | Tu préfères quoi ?¶A: {show}¶B: {band}
+ La A, sans hésiter | La B, {friend} aussi | A pour moi / B c'est {opinion}
  Ok la majorité décide à {hour} | {friend} a voté comme toi | Alors c'est réglé pour {when}

? Tu as vu {lost} ? | J'ai encore perdu {lost} | Dis, {lost} ne seraient pas chez toi par hasard ?
+ Regarde {spot} | La dernière fois c'était {spot} | Oui, {spot} ! / Je te les garde
  Pas {spot} / J'ai déjà cherché | Trouvé ! {spot} / Merci | Tu peux les donner à {friend} {when} ?
  {spot2} peut-être ? | Ouf / Achète un porte-clés | Oui, {friend} passe vers {hour}

? Tu connais une recette pour {dish} ? | Comment tu fais {dish} ? | Envoie-moi ta recette pour {dish} !
+ Regarde https://recettes.example/{n}{n2} / J'ajoute {flavour} | Il faut {flavour} et {n} minutes de cuisson | Demande à {friend}, c'est la reine
  Et si je n'ai pas {flavour} ? | Merci ! / Je tente {when} | {n} minutes, vraiment ?
  Mets {flavour2} à la place | Oui, surveille bien à la fin | Tu me diras / Garde-moi une part

? Tu as le contact de {friend} ? | C'est quoi l'adresse mail pour {friend} déjà ? | {friend} a changé de numéro ?
+ Oui, 06 39 98 {digits} {digits2} | Essaie {mail}@example.org | Demande à {friend2}
  Merci, j'appelle {when} | Parfait / C'est pour {job} | Ok, c'est pour organiser {when}

? Comment avance {job} ? | Alors, {job} ? | Tu as fini {job} ?
+ Presque / Il me reste {n} pages | Oui, enfin ! / J'ai tout rendu à {hour} | C'est {feeling} mais ça avance
  Tu veux que je relise ? | Bravo / On fête ça {place} {when} ? | Repose-toi {when}
  Oui, je t'envoie ça avant {hour} | Avec plaisir / {dish} pour tout le monde | Oui, {when} je ne fais rien
+ Non, ça bloque / {friend} ne répond pas | Rien ne marche / {job} est {feeling} | J'ai tout recommencé hier
  Pose-moi tes questions | Appelle {friend2}, qui connaît tout ça | Prends une pause / Viens {place}
  Merci / Je t'appelle à {hour} | Bonne idée pour {friend2} | D'accord, juste {n} minutes

? Je repeins {room} {when} / Tu viens aider ? | Je change tout dans {room} / Une idée de couleur ? | Tu as fini {room} ?
+ Oui, {colour} ! | Je verrais bien {colour} | Je viens à {hour} / J'apporte {item}
  {colour}, vraiment ? | Super / Il faudra {n} rouleaux | Merci / Je fais {dish} pour le midi
  Sûr / Chez {friend} c'est {opinion} | Tant que {friend} ne s'en mêle pas | {n} rouleaux ! / On en a pour la nuit

? Tu lis quoi en ce moment ? | Tu as fini {book} ? | Je te rends {book} {when} ?
+ {book} / C'est {opinion} | Oui, {part} m'a fait pleurer | {book}, page {n} / Je trouve ça {opinion}
  Tu me le prêtes {later} ? | {friend} l'avait trouvé {opinion2} | Tu préfères {book2} ?
  Oui, je te l'apporte {when} | {friend} n'aime rien | Non, {book2} était {opinion2}

? C'était comment ton week-end ? | Raconte ton week-end à {city} | Tu as fait quoi {past} finalement ?
+ {feeling} / On a fait {dish} avec {friend} | On a fini {place} / {weather} tout le temps | J'ai dormi {n} heures / C'était {feeling}
  Et {friend}, ça va ? | J'aurais voulu voir ça / Surtout avec {friend} | Moi j'avais {chore}
  Oui, {friend} prépare {job} | On y retourne {later} / Tu viens ? | Toujours quelque chose à faire, toi
"""
