"""What people fill in: names, places, sentences, times. Every fourth word is kept for held-out cases.

Long texts are put together from short ones, so that a model has to copy what stands in the
request and cannot know it by heart.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence

_WORDS: dict[str, str] = {
    "room": "kitchen, bedroom, bathroom, hallway, living room, office, attic, basement, nursery, guest room, garage, "
    "dining room, study, laundry, playroom, pantry, balcony, corridor, workshop, library, studio, porch, sauna, cellar",
    "color": "red, blue, green, yellow, warm white, purple, orange, pink, cold white, turquoise, violet, amber, "
    "magenta, lime, gold, cyan, crimson, ivory, teal, lavender",
    "door": "front, back, garage, cellar, balcony, garden, main, side, patio, kitchen, office, barn, shed, terrace",
    "window": "kitchen, bedroom, roof, bathroom, left, north, attic, stair, front, hall",
    "garden": "lawn, roses, vegetable bed, hedge, front yard, orchard, herb garden, tomatoes, greenhouse, back yard, "
    "flower bed, terrace pots, strawberry patch, meadow, berry bushes, rock garden",
    "pet": "Minka, Rex, Bella, Oscar, Luna, Felix, Bruno, Coco, Simba, Daisy, Pepper, Rocky, Nala, Toby, Mochi, Zeus",
    "camera": "front door, driveway, garden gate, garage, back yard, nursery, entrance, parking lot, cellar, stairs",
    "scene": "movie night, dinner, reading, party, relax, sunrise, romantic, focus, bedtime, cleaning, gaming, yoga",
    "label": "pasta, eggs, tea, laundry, pizza, bread, workout, break, cake, rice, meeting, nap, chicken, homework, "
    "potatoes, steak, soup, exam, dough, hair dye",
    "city": "Berlin, Tokyo, Paris, Oslo, Madrid, Lima, Cairo, Rome, Vienna, Dublin, Boston, Sydney, Nairobi, Mumbai, "
    "Prague, Lisbon, Helsinki, Toronto, Seoul, Athens, Quito, Bergen, Naples, Porto, Krakow, Tallinn, Hanoi, Bogota, "
    "Chicago, Geneva, San Francisco, Cape Town, New York, Buenos Aires, Hong Kong, Salt Lake City",
    "first": "Anna, Ben, Clara, David, Emma, Finn, Greta, Hugo, Ines, Jonas, Karim, Laura, Mehmet, Nina, Olga, Paul, "
    "Priya, Rosa, Sam, Tara, Uwe, Vera, Wei, Yuki, Zoe, Ahmed, Bianca, Carlos, Deniz, Elif, Marta, Leo",
    "last": "Novak, Smith, Tanaka, Garcia, Weber, Rossi, Khan, Olsen, Dubois, Silva, Kim, Moreau, Okafor, Petrov, "
    "Schmidt, Larsen, Costa, Jansen, Murphy, Haddad",
    "kin": "mum, dad, grandma, my boss, the dentist, my sister, my brother, the landlord, the plumber, my neighbour",
    "event_word": "dentist, team meeting, yoga class, birthday party, lunch with Ben, job interview, piano lesson, "
    "parents evening, haircut, budget review, book club, football training, doctor visit, date night, standup, "
    "choir practice, barbecue, exam, wedding, car inspection, board meeting, dance class, garage sale, concert",
    "verb": "buy, clean, call, fix, water, send, check, print, return, paint, order, feed, wash, sort, renew, pay, "
    "pack, repair, visit, cancel, finish, read, charge, sharpen, invite, empty, measure, sell",
    "thing": "milk, the car, the report, mum, the plants, the invoice, the bike, the rent, the shelf, the passport, "
    "the kitchen, new shoes, the parcel, the windows, a gift, the tickets, the roof, the insurance, the laptop, "
    "the cat, the letter, the boiler, the printer, batteries, the tax form, the fridge, the blue jacket, the tent",
    "topic": "solar panels, tomatoes, old castles, jazz, chess openings, black holes, bread baking, rust programming, "
    "the roman empire, electric cars, tax rules, bird watching, guitar chords, climate, football, vaccines, "
    "holiday plans, house prices, sourdough, machine learning, whales, coffee, hiking trails, street art",
    "adjective": "red, quick, summer, old, secret, weekly, green, family, lazy, northern, happy, final, quiet, work, "
    "broken, tiny, golden, late, winter, spare, blue, sunday, local, loud",
    "noun": "ideas, garden, budget, recipes, trip, songs, report, project, party, mix, plans, house, notes, training, "
    "books, team, evening, garage, numbers, letters, draft, road, market, meeting",
    "list": "shopping, packing, grocery, wish, party, hardware, camping, gift, school, christmas, reading, office",
    "item": "milk, apples, batteries, oat flakes, light bulbs, tomatoes, paper towels, candles, cat food, screws, "
    "olive oil, socks, eggs, pencils, coffee beans, bananas, soap, tea bags, bin bags, red onions, cheese, towels, "
    "usb cables, notebooks, printer paper, cucumbers, razor blades, tennis balls",
    "song": "Yesterday, Blue Monday, Halo, Bolero, Dancing Queen, Wonderwall, Clair de Lune, Hey Jude, Thriller, "
    "Imagine, Africa, Purple Rain, Take Five, Summertime, Hurt, Jolene, Paint It Black, Moon River, Waterloo, Creep",
    "artist": "Adele, Queen, Miles Davis, Nina Simone, Abba, Bach, Radiohead, Johnny Cash, Bjork, Toto, Prince, Muse, "
    "Dolly Parton, The Beatles, Max Richter, Rihanna, Kraftwerk, Norah Jones, Chopin, David Bowie",
    "station": "BBC 4, Jazz FM, Radio Paradise, Classic Rock, KEXP, Deutschlandfunk, NPR, Radio Nova, FIP, Capital FM",
    "movie": "Alien, The Matrix, Amelie, Up, Jaws, Casablanca, Inception, Spirited Away, Metropolis, Fargo, Heat, "
    "Rear Window, Some Like It Hot, Paddington, Moana, The Third Man",
    "language": "German, French, Spanish, Turkish, Japanese, Polish, Italian, Hindi, Swedish, Arabic, Dutch, Korean, "
    "Portuguese, Greek, Finnish, Swahili",
    "gadget": "headphones, keyboard, car radio, speaker, game controller, watch, mouse, hearing aid, printer, soundbar",
    "package": "nginx, htop, vim, docker, postgres, redis, ffmpeg, git, mosquitto, samba, grafana, curl, apache, cups, "
    "influxdb, tmux, openssh, mariadb, rsync, node",
    "shop": "bakery, pharmacy, petrol station, supermarket, cash machine, bike shop, post office, cafe, hospital, "
    "playground, bank, library, car wash, pizza place, swimming pool, hairdresser",
    "parking": "level 3, row B, Main Street 12, behind the station, the blue zone, spot 114, in front of the bakery, "
    "garage 2 row F, the north lot, near the church, deck 5, Oak Avenue 7",
    "place": "Central Station, the airport, Main Street 12, the town hall, Museum Square, 5 Oak Avenue, the harbour, "
    "the old bridge, Hotel Astoria, the zoo, Park Lane 20, the stadium, University Hospital, the market place, "
    "Terminal 2, Rose Street 44, the opera, West Gate",
    "dish": "pancakes, lasagna, chicken curry, goulash, pad thai, pizza margherita, sushi, tomato soup, falafel, tacos, "
    "apple pie, risotto, ramen, dumplings, caesar salad, paella, pea soup, chili, burritos, onion tart",
    "restaurant": "Bella Italia, Golden Dragon, Chez Marie, The Old Mill, Sakura, Taj Mahal, Blue Lagoon, El Toro, "
    "Olive Garden, Zum Hirsch, La Piazza, Green Leaf",
    "currency": "euros, dollars, yen, pounds, francs, rupees, pesos, kroner, zloty, lira, won, rand",
    "word": "serendipity, ubiquitous, gravel, nostalgia, entropy, quixotic, lantern, ephemeral, mitigate, rhubarb, "
    "obsolete, zeal, verbose, candid, tangible, hubris, fjord, mundane, brisk, quorum",
    "symbol": "AAPL, MSFT, TSLA, NVDA, SAP, BMW, IBM, AMD, ORCL, INTC, KO, NFLX, SONY, SHEL, VOW, DIS",
    "medicine": "ibuprofen, aspirin, vitamin D, insulin, penicillin, iron, paracetamol, antihistamine, zinc, cortisone, "
    "magnesium, cough syrup",
    "animal": "cat, dog, penguin, horse, parrot, cow, elephant, bear, duck, snail, fox, octopus",
    "book": "Dune, Emma, The Trial, Moby Dick, Ulysses, Momo, The Hobbit, Middlemarch, The Plague, Siddhartha, It, "
    "Frankenstein, Persuasion, The Odyssey",
    "course": "Algebra 2, Organic Chemistry, World History, Intro to Robotics, Spanish A1, Microeconomics, Drawing, "
    "Data Structures, Ethics, Film Studies, Statistics, Astronomy",
    "problem": "the printer is jammed, the login page is broken, the projector does not start, mails are lost, "
    "the vpn is slow, the door badge fails, the screen stays black, the backup failed",
    "project": "apollo, billing, webshop, orion, mobile-app, atlas, inventory, phoenix, payroll, lighthouse",
    "database": "customers, sales, inventory, users, orders, analytics, staff, archive",
    "branch": "feature/login, fix-typo, release-2.1, bugfix/cache, update-docs, feature/search, hotfix-7, refactor-db",
    "valve": "V1, V12, inlet, outlet, bypass, V7, drain, main feed, V23, cooling",
    "sql": "SELECT * FROM orders, SELECT name FROM users, SELECT COUNT(*) FROM visits, DELETE FROM logs, "
    "SELECT city FROM staff, SELECT MAX(price) FROM items",
    "host": "192.168.1.1, router.local, nas, 10.0.0.7, printer.lan, web01, 8.8.8.8, pi.local, 172.16.4.20, db-2, "
    "192.168.0.45, cam3.local, gateway, mail.lan, 10.1.2.3, build-server",
    "folder": "/home/pi, /var/log, ~/Documents, /tmp, photos, backup/2024, ~/Downloads, /etc/nginx, projects/web, music, "
    "/mnt/usb, invoices, /opt/data, ~/Pictures/summer, archive, src/lib, reports/q3, /srv/www, letters, /media/disk",
    "extension": "txt, pdf, csv, md, jpg, py, log, json, docx, png, mp3, html",
    "pattern": "*.txt, *.log, report*, IMG_*, *.py, backup-*, *2023*, invoice_*, *.mp4, draft?, *.csv, test_*",
    "adverb": "soon, today, after lunch, in ten minutes, this evening, tomorrow, again, later, at the station, on foot",
    "subject": "I, the train, the meeting, dinner, the kids, our flight, the parcel, the dog, the technician, grandpa, "
    "the package, the bus, the doctor, the new colleague, the contract, the water",
    "state": "will be late, is ready, was great, is cancelled, arrived early, is at home, needs help, is on the way, "
    "looks good, is missing, has to wait, is finished, starts at six, was moved, is too cold, feels better",
    "sentence_whole": "happy birthday, call me when you can, see you at the station, do not forget the keys, "
    "the code for the door is 4711, thanks for the flowers, we won the game, bring some bread, good luck for tomorrow, "
    "I love the new house, where did you park, the soup needs more salt, the password is under the mat, "
    "I saw a deer this morning, let us meet at noon, sorry for the noise, the tyres are new, please water the plants",
    "weekday": "monday, tuesday, wednesday, thursday, friday, saturday, sunday",
    "month": "January, February, March, April, May, June, July, August, September, October, November, December",
    "domain": "example.com, mail.org, firm.de, school.edu, post.net, web.io, house.fr, lab.uk",
}


class Values:
    """Draws values of every kind from one random generator; `held_out` draws the words kept back."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def draw(self, kind: str) -> str:
        """One value of a kind that `tools/*.txt` names after `@`."""
        if kind in _MADE:
            return _MADE[kind](self)
        return self.word(kind)

    def word(self, kind: str) -> str:
        return self.rng.choice(halves(_WORDS[kind].split(", "))[self.held_out])

    def digits(self, n: int) -> str:
        return "".join(self.rng.choice(string.digits) for _ in range(n))


def halves(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What training draws from, and every fourth word, which only held-out cases draw from.

    >>> halves(["a", "b", "c", "d", "e"])
    (['a', 'b', 'c', 'e'], ['d'])
    """
    return [w for i, w in enumerate(words) if i % 4 != 3], [w for i, w in enumerate(words) if i % 4 == 3] or words


def kinds() -> frozenset[str]:
    """Every kind that can be drawn."""
    return frozenset(_WORDS) | frozenset(_MADE)


def _name(v: Values) -> str:
    return v.rng.choice([v.word("first"), v.word("first"), f"{v.word('first')} {v.word('last')}", v.word("kin")])


def _time(v: Values) -> str:
    hour, minute = v.rng.randrange(24), v.rng.choice([0, 5, 10, 15, 20, 25, 30, 40, 45, 50, 55])
    return v.rng.choice([
        f"{hour}:{minute:02}", f"{hour:02}:{minute:02}", f"{hour % 12 + 1} {v.rng.choice(['am', 'pm'])}",
        f"{hour % 12 + 1}:{minute:02} {v.rng.choice(['am', 'pm'])}", f"half past {v.rng.choice(_HOURS)}",
        f"{v.rng.choice(_HOURS)} o'clock", v.rng.choice(["noon", "midnight", f"quarter to {v.rng.choice(_HOURS)}"]),
    ])  # fmt: skip


_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _date(v: Values) -> str:
    day, month, weekday = v.rng.randrange(1, 29), v.word("month"), v.word("weekday")
    return v.rng.choice([
        "tomorrow", "today", weekday, f"next {weekday}", f"{day} {month}", f"{month} {day}",
        f"{v.rng.randrange(2024, 2031)}-{v.rng.randrange(1, 13):02}-{day:02}", f"next {v.rng.choice(['week', 'month'])}",
        f"the {day}th of {month}" if 3 < day < 21 else f"{day} {month}",
    ])  # fmt: skip


def _when(v: Values) -> str:
    return v.rng.choice([
        f"at {_time(v)}", f"tomorrow at {_time(v)}", f"on {v.word('weekday')}", "tonight",
        f"in {v.rng.randrange(2, 50)} minutes", f"in {v.rng.randrange(2, 9)} hours", f"next {v.word('weekday')}",
        f"on {v.word('weekday')} at {_time(v)}", "tomorrow morning",
    ])  # fmt: skip


def _sentence(v: Values) -> str:
    kind = v.rng.randrange(4)
    if kind == 0:
        return v.word("sentence_whole")
    if kind == 1:
        return f"{v.word('subject')} {v.word('state')}"
    if kind == 2:
        return f"{v.word('verb')} {v.word('thing')} {v.word('adverb')}"
    return f"{v.word('subject')} {v.word('state')} and {v.word('subject')} {v.word('state')}"


def _filename(v: Values) -> str:
    stem = v.rng.choice([
        v.word("noun"), f"{v.word('adjective')}_{v.word('noun')}", f"{v.word('noun')}-{v.rng.randrange(1, 99)}",
        f"{v.word('noun')}{v.rng.randrange(2019, 2027)}",
    ])  # fmt: skip
    return f"{stem}.{v.word('extension')}"


def _path(v: Values) -> str:
    return v.rng.choice([_filename(v), f"{v.word('folder')}/{_filename(v)}", _filename(v)])


def _items(v: Values) -> str:
    return ", ".join(v.rng.sample(halves(_WORDS["item"].split(", "))[v.held_out], v.rng.randrange(1, 4)))


def _names(v: Values) -> str:
    return ", ".join(v.rng.sample(halves(_WORDS["first"].split(", "))[v.held_out], v.rng.randrange(1, 4)))


def _expression(v: Values) -> str:
    a, b, c = (v.rng.randrange(2, 400) for _ in range(3))
    op, other = v.rng.choice("+-*/"), v.rng.choice("+-*/")
    return v.rng.choice([f"{a} {op} {b}", f"{a}{op}{b}", f"({a} {op} {b}) {other} {c}", f"{a} {op} {b} {other} {c}"])


def _code(v: Values) -> str:
    letters = "".join(v.rng.choice(string.ascii_uppercase) for _ in range(2))
    return v.rng.choice([f"{letters}{v.digits(6)}", f"{letters}-{v.digits(4)}", v.digits(8), f"#{v.digits(5)}"])


def _email(v: Values) -> str:
    return f"{v.word('first').lower()}{v.rng.choice(['', '.' + v.word('last').lower()])}@{v.word('domain')}"


def _phone(v: Values) -> str:
    return v.rng.choice([f"0{v.digits(9)}", f"+{v.digits(2)} {v.digits(3)} {v.digits(6)}", f"555-{v.digits(4)}"])


def _nonsense(v: Values) -> str:
    return "".join(v.rng.choice("bdfgklmnprstvz") + v.rng.choice("aeiou") for _ in range(v.rng.randrange(2, 4)))


_MADE: dict[str, Callable[[Values], str]] = {
    "name": _name,
    "names": _names,
    "time": _time,
    "date": _date,
    "when": _when,
    "sentence": _sentence,
    "filename": _filename,
    "path": _path,
    "items": _items,
    "expression": _expression,
    "code": _code,
    "email": _email,
    "phone": _phone,
    "nonsense": _nonsense,
    "digits4": lambda v: v.digits(4),
    "task": lambda v: f"{v.word('verb')} {v.word('thing')}",
    "event": lambda v: v.word("event_word"),
    "title": lambda v: v.rng.choice([f"{v.word('adjective')} {v.word('noun')}", v.word("noun"), v.word("topic")]),
    "url": lambda v: v.rng.choice(["https://", ""]) + f"{v.word('domain')}/{v.word('noun')}",
    "ssid": lambda v: v.rng.choice([
        f"{v.word('adjective')}-{v.word('noun')}", f"{_nonsense(v)}{v.digits(2)}", f"FRITZ-{v.digits(4)}",
    ]),
    "secret": lambda v: f"{_nonsense(v)}{v.digits(3)}",
}  # fmt: skip
