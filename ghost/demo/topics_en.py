"""What the invented people talk about, in English. The grammar of a script is described in `people.py`."""
# ruff: noqa: E501  # a move and all its answers stand on one line each, so that a script reads as a conversation

SLOTS = {
    "place": "at the market, at the pool, in the park, at the library, at the cinema, at Lou's place, "
    "at the Elm café, on the beach, at the museum, at the ice rink, by the canal, at the flea market, "
    "in the botanic garden, at the climbing gym, downtown",
    "when": "tonight, tomorrow, on Saturday, on Sunday, Friday night, tomorrow at noon, on Thursday, this afternoon, "
    "Tuesday evening, this weekend, Monday lunchtime, Wednesday afternoon, Saturday morning",
    "past": "last night, yesterday, on Saturday, on Sunday, on Monday night, last Friday",
    "later": "next week, next Sunday, next month, after the holidays, on Monday, later this week, in early {month}, "
    "in late {month}, in ten days",
    "month": "January, February, March, April, May, June, July, August, September, October, November, December",
    "hour": "{h}, {h}:15, {h}:30, {h}:45, {h}:10",
    "h": "8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7",
    "n": "2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 40",
    "price": "12, 15, 18, 24, 28, 35, 42, 55, 60, 75, 90, 120",
    "dish": "a leek quiche, lasagne, chickpea curry, lemon tart, pancakes, mushroom risotto, pumpkin soup, dumplings, "
    "a potato bake, ravioli, ratatouille, couscous, pesto pasta, an omelette, a vegetable stew, apple crumble",
    "flavour": "goat cheese, lemon, cinnamon, walnuts, honey, ginger, fresh herbs, smoked paprika, olives, rosemary, "
    "dried tomatoes",
    "friend": "Lou, Sasha, Wren, Anatol, Iris, Gaspard, Swann, Colette, Ewan, Marigold, Thackeray, Zelda, Noah, Faust",
    "chore": "a dentist appointment, class until {hour}, a meeting at {hour}, the cleaning to finish, a train at {hour}, "
    "a report to hand in, my parents over, a mountain of laundry, the plumber at {hour}, band practice, "
    "a birthday at {friend2}'s, the car to drop off",
    "item": "a bottle, dessert, some crisps, my guitar, a deck of cards, a blanket, my speaker, an umbrella, the ball, "
    "a flask of tea, cookies, my camera",
    "landmark": "the fountain, the bakery, the station, the tram stop, the church, the kiosk, the pharmacy, the bridge, "
    "the town hall, the carousel",
    "show": "Low Tides, Five Winters, The Red Workshop, Ridge Line, A Thousand Lanterns, Fog over Vaubrac, "
    "The Ostrel Light, Sleepless in Kervan, Sixth Floor, Zero Degrees",
    "part": "the ending, the beginning, episode {n}, the train scene, the mother, the music, the plot, "
    "the last fifteen minutes, the dialogue",
    "opinion": "beautiful, a bit long, really funny, so sad, very well shot, weird, brilliant, not great, moving, "
    "pretty slow, incredible",
    "band": "Grey Velvet, The Tramways, Black October, Paper Walls, Radio Mirabelle, Cousins of Ys, Salt and Ash",
    "city": "Lyon, Leeds, Ghent, Bristol, Porto, Glasgow, Utrecht, Cork, Bergen, Grenoble, Turin, Basel",
    "transport": "the train, the bus, {friend2}'s car, a ride share, the night train, my bike",
    "subject": "stats, law, history, biology, English, chemistry, sociology, philosophy, accounting, drawing, geography",
    "feeling": "exhausting, quiet, intense, lovely, a bit stressful, endless, very calm, hectic",
    "pet": "the cat, the dog, the rabbit, the tortoise, the parrot, the ferret, the guinea pig",
    "mischief": "ate {dish}, knocked over the plant, is asleep on my keyboard, stole a sock, is hiding under the bed, "
    "scratched the sofa, opened the cupboard, follows me everywhere",
    "sport": "run, swim, climb, go cycling, play badminton, do yoga, play football, row, dance",
    "body": "knee, back, shoulder, ankle, head, stomach, throat, wrist",
    "present": "a cookbook, a scarf, some earrings, a plant, a puzzle, a notebook, a {band} poster, a spa voucher, "
    "a teapot, a board game, tickets for {band}",
    "lost": "my keys, my left earbud, my badge, my water bottle, my notebook, my hat, my charger, my glasses",
    "spot": "under the sofa, in your bag, at {friend}'s, on the fridge, in the car, at the back of the drawer, "
    "in your coat pocket, next to the sink, behind the radiator",
    "weather": "it's raining, it's incredibly sunny, the wind is terrible, it's snowing, it's {n} degrees, "
    "there's a storm, it's all fog",
    "room": "the kitchen, my bedroom, the living room, the hallway, the bathroom, the balcony, the study",
    "colour": "sage green, blue, yellow, off-white, terracotta, grey, pale pink",
    "book": "Slate Hours, A Summer at Malvina's, The Mapmaker, Under the Ice, The Woman on the Quay, Next to Nothing",
    "mail": "lou.p, sasha77, wren.k, anatol.g, swann, colette.b, ewan.ar, zelda",
    # Numbers and addresses reserved for fiction and examples: they belong to nobody.
    "digits": "17, 23, 31, 40, 52, 68, 75, 89, 94",
    "job": "the internship, the report, the interview, the group project, the presentation, the new job, the thesis",
}

GREETINGS = """
? Hi! / How are you? | Hey / Are you okay? | Good morning! / How is it going? | Hello / What's new?
+ I'm good, and you? | Great, and you? / Today was {feeling} | All quiet, you? / {weather} here
  Good too, thanks | I'm fine / {feeling} week but fine | Same / Over here {weather}
+ A bit tired / I have {chore} {when} | Not great / I only slept {n} hours | So so / I had {chore}
  Oh, hang in there / Get some rest {when} | Oh no / Do you want to talk about it? | Ouch / It will be better {later}
"""

GOODBYES = """
? Right, I have to go / I have {chore} | I'm off / I should be {place} already | Okay, I'm going to sleep / I get up at {hour}
+ See you! / Take care | Have a nice evening! | Sounds good, talk {later} | Go! / Say hi to {friend}
"""

TOPICS = """
? Do you want to meet {place} {when}? | Are you free {when}? / I'd love to meet {place} | I'll be {place} {when} with {friend} / Want to join?
+ Yes, definitely / What time should we meet? | I'd love to! / What time? | Yes to {place} / Should I pick you up?
  Around {hour} / I'll bring {item} | {hour} in front of {landmark}? / Bring {item} if you can | Let's say {hour} / {friend} will be a bit late
  Perfect, {hour} it is / I'll tell {friend} | Sounds good / I'll bring {item2} then | {hour}, noted / I can't wait
+ Ah, I can't {when} / I have {chore} | Not {when} / I'm stuck with {chore} | I would have loved to but I have {chore}
  Too bad / Shall we try {later}? | No worries / Is {later} better? | Oh no / {friend} will be sad
  Yes, {later} works / I'll tell you what time | {later} is perfect / And I'll bring {item} this time | Yes, {later}, I promise
+ Maybe / It depends on {friend} | I don't know yet / I have {chore} before | What time does it end? / I work early
  Tell me before {hour} / So that I can book | No stress / We'll be there until {hour} | Even one hour would make {friend} happy
  Okay, I'll tell you before {hour} | Fine, I'll come around {hour} | I'll ask {friend} and let you know

? What are we eating {when}? | What are you cooking {when}? | I'm hungry / Any idea for {when}?
+ I was thinking of {dish} / With {flavour} | {dish}? / I still have {flavour} | Shall we try {dish}? / {friend} gave me the recipe
  Oh yes, {dish} / I'll bring {flavour2} | Yum / Do you put {flavour2} in it? | {dish}, how long does it take?
  {n} minutes in the oven and it's done | Yes, with {flavour2} it's even better | Come around {hour} and we'll cook together
+ No idea / The fridge is empty | I don't want to cook / Shall we order? | I'm eating at {friend}'s {when}
  Let's order {dish} then? / It's {price} euros | I can bring {dish} | I have some {dish} left if you want
  Yes, {dish}, perfect / I'll pay you back | Good idea / {hour} at my place? | You're saving me / I'll bring {item}

? Have you seen {show}? | I finally finished {show} | {friend} told me to watch {show} / Is it worth it?
+ Yes! / I thought {part} was {opinion} | Yes, with {friend} / {part} is {opinion} | I loved {show} / Especially {part}
  Oh yes, {part} was {opinion} | I disagree / {part} is {opinion2} | What about {part2}? / I found it {opinion2}
  Yes but {part2} is still {opinion} | Shall we watch the rest {when}? / I'll bring {item} | You should try {show2} too
+ Not yet / I'm on episode {n} | No, is it good? | No, I'm watching {show2} right now
  Yes, {part} is {opinion} / You'll like it | I warn you, {part} is {opinion} | Shall we watch it together {when}?
  Okay, I'll start {when} / Don't tell me anything | Okay for {when} / I'll get {item} | I'm tempted / {friend} said it was {opinion2}

? How was the {subject} exam? | So, {subject}? | Did you get your {subject} grade?
+ Better than expected! / I think I got {n} answers right | I got {n} out of 40 | Good / The questions about {part} were easy
  Congratulations! / Shall we celebrate {when}? | I'm proud of you / {friend} will be happy too | You see, you worried for nothing
  Yes, let's celebrate {place} | Thank you / Now there's only {subject2} left | Thanks! / Your {subject} notes saved me
+ Horrible / I forgot {n} questions | A disaster / I didn't understand question {n} | Not great / I studied {subject2} instead
  Oh no / Is there a resit {later}? | Hang in there / I can help you with {subject} {when} | It happens / {friend} failed too
  Yes, {later} / I'm going to study {subject} seriously | Thanks, would {when} at {hour} work? | I'm going to eat {dish} and forget

? What time do you get to {city}? | How are you getting to {city}? | Shall we go to {city} {later}?
+ At {hour} if {transport} is on time | {transport}, leaving at {hour} | Around {hour} / I'm taking {transport}
  I'll pick you up at {hour} / Wait in front of {landmark} | Great / Then we can meet {place} | How much is it?
  {price} euros return | Thank you! / I'll have {item} with me | Okay, in front of {landmark}
+ I missed {transport} / The next one is at {hour} | {n} minutes late, as always | I'm still in {city2} / {weather}
  No problem / I'll wait {place} | What a mess / Tell {friend} | Don't run, we eat at {hour}
  Okay, I'll tell {friend} / Save me some {dish} | Thanks / I'll be there around {hour} | I'm on it, finally

? {weather}, same at your place? | Shall we go for a walk? / {weather} here | Have you seen the weather? / {weather}
+ Yes, {weather} here too / Shall we meet {place}? | Here {weather2} | No, {weather2} here / I'm staying in {room}
  Then we stay warm and make {dish} | Shall we still try to meet {place}? | It should change {when}
  Okay, I'll bring {item} | Yes but I'm taking {item} | No, I have {chore}

? When is {friend}'s birthday? / What do we get? | Any present idea for {friend}? | {friend} is turning {n} {when}
+ {present}? / It's {price} euros | I was thinking of {present} | Why not {present}? / I saw one {place}
  Good idea / Shall we split it? | I think {friend} already has {present} | {price} euros is a lot / Maybe {present2}?
  Okay for {present2} / I'll take care of it {when} | Yes, that's {n} euros each | {present2} then / I'm going {when}
+ No idea / {friend} has everything | We should ask {friend2} | A dinner {place}?
  {friend2} says {present} | What about {present}? | We could also make {dish}
  {present}, yes, very good | Great / I'll also get {present2} | Perfect, and {friend2} brings {item}

? Do you want to {sport} {when}? | I started to {sport} / Want to try with me? | Do you still {sport} {when}?
+ Yes! / {n} kilometres last time | Yes but slowly / My {body} hurts | Always ready to {sport} / {hour}?
  {hour} in front of {landmark} | Be careful with your {body} though | {friend} is coming too
  Perfect, {hour} / I'll take {item} | I promise I'll stretch first | Tell {friend} to bring {item}
+ Impossible, I hurt my {body} | I'm too lazy / {weather} | No more time, I have {chore}
  Oh no / Did you see a doctor? | Come on, just {n} minutes | {later} then?
  Appointment {when} at {hour} | Okay, {n} minutes and then {dish} | Yes, {later}, when my {body} is better

? You'll never guess what {pet} did | {pet} {mischief} again | Look at {pet}!
+ What now? / Last time it was {lost} | No! / Tell me | Oh, I miss {pet}
  {pet} {mischief} / It took me {n} minutes to understand | {mischief}, in front of {friend} too | And then {pet} {mischief2}
  Poor {friend} / And poor {pet} | Did you take a picture? | {pet} is a genius

? Are you going to see {band}? | {band} play {place} {when} | I have two tickets for {band} / Are you coming?
+ Yes! / It's {price} euros | Of course / I love their last album | With whom? / {friend} is going too
  Let's meet at {hour} in front of {landmark} | {price} euros a ticket, is that okay? | {friend} is driving
  Okay for {hour} / I'll bring {item} | I'll send you {price} euros | Can't wait to see {band}
+ I don't know {band} / What do they sound like? | Too expensive, {price} euros | I have {chore} {when}
  A bit like {band2} but {opinion} | Listen to the album, it's {opinion} | Too bad / {band2} are playing {later}
  I'll listen {when} and tell you | {band2}, yes! / Get me a ticket | Okay, for {n} euros I'll come

? What do we pick for {when}?¶A: {dish}¶B: {dish2} | Vote for {when}:¶A: {place}¶B: {place2} | Which one do you prefer?¶A: {show}¶B: {band}
+ A, no doubt | B, and {friend} too | A for me / B is {opinion}
  Okay, the majority decides at {hour} | {friend} voted like you | Then it's settled for {when}

? Have you seen {lost}? | I lost {lost} again | Are {lost} at your place by any chance?
+ Look {spot} | Last time they were {spot} | Yes, {spot}! / I'll keep them for you
  Not {spot} / I already looked | Found! {spot} / Thank you | Can you give them to {friend} {when}?
  Maybe {spot2}? | Phew / Buy a key ring | Yes, {friend} comes by around {hour}

? Do you know a recipe for {dish}? | How do you make {dish}? | Send me your recipe for {dish}!
+ Look at https://recipes.example/{n}{n2} / I add {flavour} | You need {flavour} and {n} minutes in the oven | Ask {friend}, nobody does it better
  And if I don't have {flavour}? | Thank you! / I'll try it {when} | {n} minutes, are you sure?
  Use {flavour2} instead | Yes, keep an eye on it at the end | Tell me how it went / Keep some for me

? Do you have {friend}'s number? | What is {friend}'s email again? | Did {friend} change numbers?
+ Yes, 07700 9000{digits} | Try {mail}@example.org | Ask {friend2}
  Thanks, I'll call {when} | Perfect / It's about {job} | Okay, it's to plan {when}

? How is {job} going? | So, {job}? | Did you finish {job}?
+ Almost / {n} pages left | Yes, finally! / I handed it in at {hour} | It's {feeling} but it's moving
  Do you want me to read it? | Well done / Shall we celebrate {place} {when}? | Get some rest {when}
  Yes, I'll send it before {hour} | With pleasure / {dish} for everyone | Yes, {when} I'm doing nothing
+ No, I'm stuck / {friend} doesn't answer | Nothing works / {job} is {feeling} | I started all over again yesterday
  Ask me your questions | Call {friend2}, that's the expert | Take a break / Meet me {place}
  Thank you / I'll call you at {hour} | Good idea to ask {friend2} | Okay, just {n} minutes

? I'm painting {room} {when} / Will you help? | I'm changing everything in {room} / Any colour idea? | Did you finish {room}?
+ Yes, {colour}! | I can see it in {colour} | I'll be there at {hour} / I'll bring {item}
  {colour}, are you sure? | Great / We'll need {n} rolls | Thank you / I'm making {dish} for lunch
  Sure / At {friend}'s it's {opinion} | As long as {friend} stays out of it | {n} rolls! / That will take all night

? What are you reading at the moment? | Did you finish {book}? | Should I give {book} back {when}?
+ {book} / It's {opinion} | Yes, {part} made me cry | {book}, page {n} / I find it {opinion}
  Will you lend it to me {later}? | {friend} found it {opinion2} | Do you prefer {book2}?
  Yes, I'll bring it {when} | {friend} doesn't like anything | No, {book2} was {opinion2}

? How was your weekend? | Tell me about your weekend in {city} | What did you do {past} in the end?
+ {feeling} / We made {dish} with {friend} | We were {place} / {weather} all the time | I slept {n} hours / It was {feeling}
  And how is {friend}? | I would have loved to see that / Especially with {friend} | I had {chore}
  Good, {friend} is preparing {job} | We're going again {later} / Are you coming? | You're always busy
"""
