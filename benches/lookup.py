"""Prompt-lookup speculation: editing a text and free chat, ours with speculation against ours without, greedy.

The task is to repeat a text of some 400 tokens with one word changed. Speculation must not change an answer: the texts
of both servers are compared, and the edit with what was asked for: a round in which the model did something else than
edit is not counted. Synthetic models do not copy: use a real one.
"""

import difflib
import random

import sides
import wire

NAMES = "Marta Oliver Ingrid Samuel Beatrice Tobias Clara Edmund".split()
# Each run begins with another of them, and has another name.
SENTENCES = [
    "{name} walked down to the harbour early in the morning with a ladder under one arm.",
    "Nobody had expected such a clear sky so soon after the storm.",
    "An old copper kettle stood in the corner, and it had not been used for years.",
    "When the rain stopped, two carpenters carried the new window across the yard.",
    "The price of olive oil had doubled since April, said {name}.",
    "At noon a letter arrived from Lisbon, but it did not mention money at all.",
    "Children followed the brass band along the wall and threw paper flowers.",
    "It took most of the afternoon to find the key that {name} had hidden in the garden.",
    "Some villagers still believe that the bridge was built in a single night.",
    "Before winter came, {name} sold both horses and bought a second-hand bicycle.",
    "The library closes at six, except on Thursdays, when readers may stay until nine.",
    "A grey cat slept on the warm engine of the delivery van.",
    "Inside the drawer lay three maps, a broken compass and some foreign coins.",
    "Doctor Lindqvist advised {name} to drink more water and to sleep longer.",
    "Far out on the lake a small boat turned slowly in the wind.",
    "The baker gave every customer a free roll because the oven had been repaired.",
    "Only one train a day stops at this station, and it is usually late.",
    "{name} painted the front door green, although the neighbours preferred blue.",
    "Under the stairs they discovered a box of photographs from another century.",
    "Tomorrow the museum will open its new room about the history of glass.",
    "Somebody had written a telephone number on the back of the concert ticket.",
    "In the evening {name} lit the stove and read a chapter about volcanoes.",
]
QUESTIONS = [
    "What should somebody who visits the sea for the first time pack, and why?",
    "Explain to a child how bread is made.",
    "Tell a short story about a dog that learns to open doors.",
    "Which habits help a student to learn a language?",
]


def edit(source, sentences):
    """A prompt of the task, and the answer that it asks for."""
    old, new = source.sample(NAMES, 2)
    first = source.randrange(len(SENTENCES))
    text = " ".join((SENTENCES[first:] + SENTENCES[:first])[:sentences]).format(name=old)
    wanted = text.replace(old, new)
    # A small model needs to be shown the beginning of the answer.
    start = " ".join(wanted.split()[:8])
    return f"Original:\n{text}\n\nEdited ({old} is now {new}):\n{start}", wanted.removeprefix(start)


def edits(source, arguments):
    asked = [edit(source, arguments.sentences) for _ in range(arguments.streams)]
    body = {"max_tokens": arguments.tokens, "temperature": 0, "stop": ["\n"]}
    return [wire.encode(body | {"prompt": prompt}) for prompt, _ in asked], [text for _, text in asked]


def chats(source, arguments):
    body = {"max_tokens": arguments.chat_tokens, "temperature": 0, "ignore_eos": True}
    questions = [f"{source.choice(QUESTIONS)} (Number {source.randrange(10**6)}.)" for _ in range(arguments.streams)]
    messages = [[{"role": "user", "content": question}] for question in questions]
    return [wire.encode(body | {"messages": each}, "/v1/chat/completions") for each in messages], None


def likeness(answer, wanted):
    return difflib.SequenceMatcher(None, answer.text.strip().split(), wanted.split(), autojunk=False).ratio()


def figures(task, answers):
    timings = [answer.timings or {} for answer in answers]
    drafted, accepted = (sum(each.get(name, 0) for each in timings) for name in ("draft_n", "draft_n_accepted"))
    return {
        f"{task}, tokens/s": wire.together(answers, wire.per_event(answers)),
        f"{task}, tokens": sides.median([answer.tokens for answer in answers]),
        f"{task}, accepted of drafted": sides.ratio(accepted, drafted),
    }


def main():
    options = sides.parser(__doc__, parallel=4, context=2048, runs=5)
    options.add_argument("--speculate", default="engine.speculate.ngram = true", help="the setting that is compared")
    options.add_argument("--streams", type=int, default=1, help="requests at once")
    options.add_argument("--sentences", type=int, default=22, help="of the text, 18 tokens each, 22 at most")
    options.add_argument("--tokens", type=int, default=500, help="most of an edit; it ends by itself")
    options.add_argument("--chat-tokens", type=int, default=200)
    options.add_argument("--least", type=float, default=0.7, help="share of the asked for words that makes it an edit")
    arguments = options.parse_args()

    servers = [sides.ours(arguments, "speculating", [arguments.speculate]), sides.ours(arguments, "plain")]
    runs = {server.label: [] for server in servers}
    same, like, compared = 0, [], 0
    source = random.Random()
    with sides.running(arguments, servers):
        for _ in range(arguments.runs):
            for task, make in (("edit", edits), ("chat", chats)):
                requests, wanted = make(source, arguments)
                found = {}
                for server in servers:
                    found[server.label] = [answer.require() for answer in wire.ask(server.port, requests)]
                same += sum(a.text == b.text for a, b in zip(*found.values()))
                compared += arguments.streams
                likes = [likeness(*pair) for pair in zip(found["plain"], wanted or [])]
                like += likes
                if min(likes, default=1) < arguments.least:
                    continue
                for label, answers in found.items():
                    runs[label].append(figures(task, answers))
    middle = sides.compare(runs, dict.fromkeys(name for run in runs["plain"] for name in run))
    edited = [each for each in like if each >= arguments.least]
    print(f"{same} of {compared} answers are equal with and without speculation")
    right = sides.shown(100 * (sides.median(edited) or 0))
    print(f"{len(edited)} of {len(like)} edits are the task, {right} % of their words right")
    sides.write(arguments, runs=runs, medians=middle, equal=same, compared=compared, likeness=like)


if __name__ == "__main__":
    main()
