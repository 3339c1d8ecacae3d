"""A chat of many turns: prompt tokens, cached and computed ones in each turn, ours and llama-server, its caches on.

`new` is what a perfect cache would compute: the prompt without all that the server read or wrote in the turn before. The
client sends the server's own answers back; with `--scripted` it sends others, so that only the prompt can be reused.
"""

import random

import sides
import wire

WORDS = "time year people way day man thing woman life child world school state family student group country problem".split()


def words(source, count):
    return " ".join(source.choices(WORDS, k=count))


def chat(port, arguments, salt):
    """One conversation; a row for each turn."""
    source = random.Random(salt)
    messages = [{"role": "system", "content": f"Conversation {salt}. " + words(source, arguments.system)}]
    rows, known = [], 0
    for turn in range(1, arguments.turns + 1):
        messages.append({"role": "user", "content": words(source, arguments.words)})
        body = {"messages": messages, "max_tokens": arguments.tokens, "temperature": 0}
        answer = wire.ask(port, [wire.encode(body, "/v1/chat/completions")])[0].require()
        prompt = answer.usage["prompt_tokens"]
        rows.append({
            "turn": turn, "prompt": prompt, "cached": answer.cached, "computed": answer.computed, "new": prompt - known,
            "first token, ms": answer.ttft * 1000 if answer.times else None,
        })  # fmt: skip
        text = words(source, arguments.tokens // 2) if arguments.scripted else answer.text
        messages.append({"role": "assistant", "content": text})
        known = prompt + (0 if arguments.scripted else answer.tokens)
    return rows


def main():
    options = sides.parser(__doc__, runs=1, parallel=4)
    options.add_argument("--turns", type=int, default=20)
    options.add_argument("--system", type=int, default=200, help="words of the system prompt")
    options.add_argument("--words", type=int, default=40, help="of each question")
    options.add_argument("--tokens", type=int, default=48, help="most tokens of each answer")
    options.add_argument("--scripted", action="store_true")
    arguments = options.parse_args()
    # A synthetic tokenizer spends a token on every letter.
    most = 7 * (arguments.system + arguments.turns * (arguments.words + arguments.tokens))
    arguments.context = arguments.context or min(8192, -(-most // 1024) * 1024)

    servers = sides.both(arguments)
    runs = {server.label: [] for server in servers}
    with sides.running(arguments, servers):
        for _ in range(arguments.runs):
            salt = random.randrange(10**9)
            for server in servers:
                runs[server.label].append(chat(server.port, arguments, salt))
    middle = {}
    for label, found in runs.items():
        rows = [{key: sides.median([run[turn][key] for run in found]) for key in row} for turn, row in enumerate(found[0])]
        later = {key: sum(row[key] for row in rows[1:]) for key in ("prompt", "cached", "computed", "new")}
        middle[label] = {"turns": rows, "after the first turn": later}
        print(f"\n{label}")
        total = ["2 …", *later.values(), sides.median([row["first token, ms"] for row in rows[1:]])]
        sides.table(list(rows[0]), [*(list(row.values()) for row in rows), total])
        print(f"computed / new after the first turn: {sides.shown(sides.ratio(later['computed'], later['new']))}")
    sides.write(arguments, runs=runs, medians=middle)


if __name__ == "__main__":
    main()
