# The server answers a chat with the default model, is asked over a Unix socket (so no port can be taken), and
# stops when it is told to.
{
  pkgs,
  llm-server,
  models,
  ...
}:
pkgs.runCommand "llm-server-answer"
  {
    nativeBuildInputs = [
      pkgs.curl
      pkgs.jq
    ];
    LLM_SERVER_MODELS = models;
  }
  ''
    ask() { curl --silent --show-error --fail --unix-socket "$PWD/socket" "$@"; }

    ${llm-server}/bin/llm-server serve ${../../config.ncl} --lock ${../../models.lock} \
      --set "listen = \"unix:$PWD/socket\"" 2> log &
    server=$!
    trap 'cat log >&2' EXIT
    ask --retry 120 --retry-delay 1 --retry-all-errors --output /dev/null http://server/health/ready

    ask --json '{
      "messages": [{"role": "user", "content": "Write one sentence about the sea."}],
      "max_tokens": 32, "temperature": 0
    }' http://server/v1/chat/completions | tee answer.json
    jq --exit-status '(.choices[0].message.content | test("[a-z]{3}")) and .usage.completion_tokens > 3' answer.json
    ask http://server/version | jq --exit-status .system_fingerprint

    kill -TERM $server
    wait $server
    trap - EXIT
    cp answer.json $out
  ''
