"""The shell scripts that prepare a guest's compilers for ``armvm accelerate``.

They run as root. The program that stands for the compilers is `templates/accelerate.c`, compiled in
the guest: so it runs on any distribution.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

#: The compilers in ``/usr/bin``, by language.
COMPILERS = {"c": "gcc", "c++": "g++"}
#: The port of the guest's loopback address that leads to the host.
PORT = 36321
#: The scripts' exit codes.
NO_COMPILER, NOT_COMPILED, NO_SERVICE, NOT_SERVED, DIFFERENT, TAKEN = 65, 66, 67, 68, 69, 70
#: The program, and the state that ends with the guest's run.
PROGRAM, STATE = "/usr/local/lib/armvm/accelerate", "/run/armvm-accelerate"

#: Prints what `read_facts` reads. Sources of the include directories: gcc -v.
FACTS = f"""\
real() {{ readlink -f "/usr/bin/$1" 2>/dev/null; }}
[ -x /usr/bin/gcc ] || exit {NO_COMPILER}
echo "machine $(uname -m)"
tell() {{
  echo "version $1 $("/usr/bin/$2" -dumpfullversion)"
  for one in cc c++ "$2" "$2"-[0-9]* *-linux*-"$2" *-linux*-"$2"-[0-9]*; do
    [ -e "$one" ] && [ "$(real "$one")" = "$(real "$2")" ] && echo "name $1 $one"
  done
  LC_ALL=C "/usr/bin/$2" -x "$1" -E -v - </dev/null 2>&1 >/dev/null |
    sed -n '/^#include </,/^End of search/s/^ /include '"$1"' /p'
}}
cd /usr/bin
tell c gcc
[ ! -x /usr/bin/g++ ] || tell c++ g++
"""

_PROBES = {
    "c": r"""
#include <stdarg.h>
struct pair { char text[40]; long number; };
extern int call(struct pair *, int), shared;
static _Atomic long count;
int probe(int first, ...)
{
    struct pair one = {"probe", first};
    va_list rest;
    va_start(rest, first);
    for (int at = 0; at < first; at++)
        one.number += va_arg(rest, int) * shared + call(&one, at) % 7;
    va_end(rest);
    return (int)one.number + (int)count++;
}
""",
    "c++": r"""
struct Base { virtual ~Base(); virtual int run(int) const; };
template <typename T> struct Box : Base
{
    T kept[9];
    int run(int at) const override { return kept[at]; }
};
namespace { Box<long> box; thread_local int last; }
int probe(int at)
{
    static Base *base = new Box<char>();
    try { last += base->run(at) + box.run(at); } catch (int error) { return error; }
    return last;
}
""",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A guest's compilers by language (``c``, ``c++``): versions, names, include directories."""

    machine: str
    versions: Mapping[str, str]
    names: Mapping[str, str]
    includes: Mapping[str, tuple[str, ...]]


def read_facts(text: str) -> Facts:
    """Read what the script FACTS prints; the guest may print anything."""
    versions: dict[str, str] = {}
    names: dict[str, str] = {}
    includes: dict[str, list[str]] = {"c": [], "c++": []}
    machine = ""
    for line in text.splitlines()[:10_000]:
        kind, _, rest = line.partition(" ")
        language, _, value = rest.partition(" ")
        if kind == "machine":
            machine = rest
        elif language not in includes:
            continue
        elif kind == "version" and re.fullmatch(r"\d{1,3}(\.\d{1,4}){0,3}", value, re.ASCII):
            versions[language] = value
        elif kind == "name" and re.fullmatch(r"[\w.+-]{1,80}", value, re.ASCII):
            names[value] = language
        elif kind == "include" and re.fullmatch(r"/[\w./+-]{1,400}", value, re.ASCII):
            includes[language].append(posixpath.normpath(value))
    return Facts(
        machine=machine,
        versions=versions,
        names=names,
        includes={key: tuple(value) for key, value in includes.items() if key in versions},
    )


def install(source: str, facts: Facts, host: str, user: str) -> bytes:
    """Return the script that installs the program, and proves that the host compiles the same.

    *source* is the program's C source. Compiles a probe in each language, in the guest and by the
    host: the objects have to be equal but for the compiler's name. Does that only once for the
    guest's compilers and those of the *host*, which any text without quotes stands for. The
    program trusts only a service that root or *user*, who logs in for ssh, forwards. Undoes itself
    if it fails.
    """
    names = " ".join(sorted(facts.names))
    stats = "".join(f'stat -L -c "%s %Y" /usr/bin/{COMPILERS[one]}\n' for one in facts.versions)
    probes = "".join(
        f"cat >{STATE}/probe/p.{_suffix(language)} <<'EndOfProbe'\n{_PROBES[language]}EndOfProbe\n"
        f"probe {COMPILERS[language]} p.{_suffix(language)}\n"
        for language in facts.versions
    )
    return f"""\
umask 022
fail() {{
  rm -rf {STATE}/on {STATE}/probe
  exit $1
}}
mkdir -p {posixpath.dirname(PROGRAM)} /usr/local/bin {STATE}/probe || exit 1
mkdir -p -m 1777 {STATE}/said || exit 1
made=
cat >{STATE}/new.c <<'EndOfProgram'
{source}EndOfProgram
if ! cmp -s {STATE}/new.c {PROGRAM}.c || [ ! -x {PROGRAM} ]; then
  # A static program starts sooner, but some distributions lack the static library.
  /usr/bin/gcc -O1 -static -o {PROGRAM}.new {STATE}/new.c 2>/dev/null ||
    /usr/bin/gcc -O1 -o {PROGRAM}.new {STATE}/new.c || fail {NOT_COMPILED}
  made=yes
  mv -f {PROGRAM}.new {PROGRAM} && mv -f {STATE}/new.c {PROGRAM}.c || fail 1
fi
for name in {names}; do
  link=/usr/local/bin/$name
  if [ -e "$link" ] && [ "$(readlink -f "$link")" != {PROGRAM} ]; then
    echo "$link" >&2
    fail {TAKEN}
  fi
done
user=$(id -u -- {shlex.quote(user)}) || fail {NO_SERVICE}
tries=0
listens='^ *[0-9]*: 0100007F:{PORT:04X} 00000000:0000 0A [^ ]* [^ ]* [^ ]*'
until grep -Eq "$listens +(0|$user) " /proc/net/tcp; do
  tries=$((tries + 1))
  [ $tries -lt 240 ] || fail {NO_SERVICE}
  sleep 0.25
done
for name in {names}; do
  ln -sf {PROGRAM} /usr/local/bin/$name
done
{{ echo {PORT} $user
{stats}}} >{STATE}/new && mv -f {STATE}/new {STATE}/on || fail 1
{{ echo "{host}"; cat {STATE}/on; }} >{STATE}/told || fail 1
if [ -z "$made" ] && cmp -s {STATE}/told {PROGRAM}.proved; then
  rm -rf {STATE}/probe
  exit 0
fi
cd {STATE}/probe || fail 1
probe() {{
  /usr/bin/$1 -g -O2 -fno-ident -c $2 -o here.o || fail {NOT_COMPILED}
  ARMVM_ACCELERATE=only /usr/local/bin/$1 -g -O2 -fno-ident -c $2 -o there.o || fail {NOT_SERVED}
  cmp -s here.o there.o || fail {DIFFERENT}
}}
{probes}cd / && rm -rf {STATE}/probe
mv -f {STATE}/told {PROGRAM}.proved || fail 1
""".encode()


#: Turns the program off. It stays, because a running build may know it by its path.
OFF = f"rm -f {STATE}/on\n".encode()


def _suffix(language: str) -> str:
    return "c" if language == "c" else "cc"
