"""A drafter's worth: ours with a draft model or a model's own prediction layers against ours without, in turns.

Both servers get the same prompts: questions, or (`--random`) token ids, which suit synthetic models. Speculation must not
change an answer: greedy texts of both are compared. A synthetic model that its prediction layer can guess for is written by
`gen_moe.py --mtp --mtp-reads token --gain 0.03 --logit-scale 40`: the smaller the gain, the more guesses come true, and
without so large a scale of logits nobody is sure enough to guess.

    benches/draft.py --model target.gguf --draft draft.gguf
    benches/draft.py --model target.gguf --mtp --random --streams 1,4,8
"""

import random
import sys

import lookup
import sides
import wire

SAMPLING = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": 1},
}


def drafted(arguments):
    """The server that drafts: with a file of its own, or by the model's prediction layers."""
    settings = ["engine.speculate.mtp = true"] if arguments.mtp else []
    server = sides.ours(arguments, "drafted", [*settings, *arguments.drafted])
    plain = server.command
    server.command = lambda port: plain(port) + (["--draft-file", arguments.draft] if arguments.draft else [])
    return server


def requests(source, prompts, arguments, count, sampling):
    body = {"max_tokens": arguments.tokens, "ignore_eos": True} | SAMPLING[sampling]
    if arguments.random:
        return [wire.encode(body | {"prompt": prompts.ids(arguments.prompt)}) for _ in range(count)]
    questions = [f"{source.choice(lookup.QUESTIONS)} (Number {source.randrange(10**6)}.)" for _ in range(count)]
    messages = [[{"role": "user", "content": question}] for question in questions]
    return [wire.encode(body | {"messages": each}, "/v1/chat/completions") for each in messages]


def figures(name, answers):
    timings = [answer.timings or {} for answer in answers]
    made, right = (sum(each.get(field, 0) for each in timings) for field in ("draft_n", "draft_n_accepted"))
    tokens = sum(answer.tokens for answer in answers)
    seconds = max(answer.times[-1] for answer in answers) - min(answer.begun for answer in answers)
    return {
        f"{name}: tokens/s": tokens / seconds,
        f"{name}: ms to the first token": 1000 * sides.median([answer.ttft for answer in answers]),
        f"{name}: accepted of drafted": sides.ratio(right, made),
        f"{name}: accepted of all tokens": right / tokens,
    }


def main():
    options = sides.parser(__doc__, context=4096, runs=5)
    options.add_argument("--draft", help="GGUF file of the model that guesses")
    options.add_argument("--mtp", action="store_true", help="the model's own prediction layers guess")
    options.add_argument("--drafted", action="append", default=[], help="one more setting for the one that drafts")
    options.add_argument("--streams", default="1,4", help="requests at once")
    options.add_argument("--random", action="store_true", help="prompts of token ids instead of questions")
    options.add_argument("--prompt", type=int, default=128, help="tokens of such a prompt")
    options.add_argument("--tokens", type=int, default=256, help="of each answer")
    arguments = options.parse_args()
    if not (arguments.draft or arguments.mtp or arguments.drafted):
        sys.exit("who shall guess? --draft FILE, --mtp, or --drafted SETTING")
    counts = [int(count) for count in arguments.streams.split(",")]
    arguments.parallel = arguments.parallel or max(counts)

    servers = [drafted(arguments), sides.ours(arguments, "plain")]
    runs = {server.label: [] for server in servers}
    same, compared = 0, 0
    source = random.Random()
    prompts = sides.Prompts(arguments)
    with sides.running(arguments, servers):
        for turn in range(arguments.runs):
            found = {server.label: {} for server in servers}
            for count in counts:
                for sampling in SAMPLING:
                    asked = requests(source, prompts, arguments, count, sampling)
                    answers = {}
                    for server in servers if turn % 2 else reversed(servers):
                        sides.settle(servers)
                        answers[server.label] = [answer.require() for answer in wire.ask(server.port, asked)]
                        found[server.label] |= figures(f"{count} × {sampling}", answers[server.label])
                    if sampling == "greedy":
                        same += sum(a.text == b.text for a, b in zip(*answers.values()))
                        compared += count
            for label, figure in found.items():
                runs[label].append(figure)
    middle = sides.compare(runs, dict.fromkeys(name for run in runs["plain"] for name in run))
    print(f"{same} of {compared} greedy answers are equal with and without a drafter")
    sides.write(arguments, runs=runs, medians=middle, equal=same, compared=compared)


if __name__ == "__main__":
    main()
