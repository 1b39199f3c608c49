"""postgres_query: the rows that one SQL query gives, and nothing changed.

The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, exit code 0 is
success. DATABASE_URL is a role that was made for this call.

What may be read, and that nothing can be written, is up to that role. What is here holds without it: the transaction is read-only, the
query is the body of a cursor, which can be nothing but a query, and it is sent in a way that takes one statement (the extended protocol of
PostgreSQL's manual, 55.2.3).
"""

import contextlib
import json
import math
import os
import sys
import time

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import DiagnosticField, ExecStatus

MAX_SQL = 16 << 10
MAX_ROWS = 1000
DEFAULT_ROWS = 100
MAX_SECONDS = 30
DEFAULT_SECONDS = 10
# With what is around them, rows stay below the tool's output limit of 2 MiB.
MAX_BYTES = 1 << 20
# Most rows that are asked for at once, and fewer at first: the server puts them all together before it sends one.
BATCH = 64
CONNECT_SECONDS = 5
# Whom to trust where the URL says `sslmode=verify-full`. Given with `require`, libpq would verify there too.
ROOTS = "/etc/ssl/certs/ca-certificates.crt"
# Documents that are deeper, or have larger whole numbers, go as text: readers of JSON have limits of their own.
MAX_DEPTH = 32
WHOLE = range(-(1 << 63), 1 << 64)

# `query_canceled` of PostgreSQL's manual, appendix A.
TIMED_OUT = "57014"

# Types whose text is JSON, by their numbers in pg_type. Anything else goes as text, `numeric` too: no digit is lost.
BOOL, INTEGERS, FLOATS, DOCUMENTS = 16, (20, 21, 23, 26), (700, 701), (114, 3802)


class Refused(Exception):
    """There is no answer; the text says why, and goes to the caller."""

    def __init__(self, message, **more):
        super().__init__(message)
        self.more = more


def parse(raw):
    """sql, limit and seconds, checked; raises Refused."""
    try:
        arguments = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused("the arguments are no JSON") from error
    if not isinstance(arguments, dict):
        raise Refused("the arguments must be an object")
    sql = arguments.pop("sql", None)
    limit = arguments.pop("limit", DEFAULT_ROWS)
    seconds = arguments.pop("timeout_seconds", DEFAULT_SECONDS)
    if arguments:
        raise Refused(f"unknown argument `{sorted(arguments)[0]}`")
    if not isinstance(sql, str) or not 0 < len(sql) <= MAX_SQL or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in sql):
        raise Refused(f"`sql` must be one query of at most {MAX_SQL} characters")
    for name, number, most in (("limit", limit, MAX_ROWS), ("timeout_seconds", seconds, MAX_SECONDS)):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
            raise Refused(f"`{name}` must be a whole number from 1 to {most}")
    return sql, limit, seconds


def encode(raw, kind):
    """A value as JSON. `raw` is what the server says, None for NULL; `kind` its type's number."""
    if raw is None:
        return "null"
    said = raw.decode("utf-8", "replace")
    if kind == BOOL:
        return "true" if said == "t" else "false"
    if kind in INTEGERS or (kind in FLOATS and math.isfinite(float(said))):
        return said
    if kind in DOCUMENTS:
        return document(said)
    return json.dumps(said)


def document(said):
    """A JSON document as itself, or as text where not every reader would take it."""
    try:
        value = json.loads(said, parse_int=whole, object_pairs_hook=members)
        # Refuses numbers that are infinite for most readers, and halves of characters.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        if depth(value) <= MAX_DEPTH:
            return said
    except (ValueError, RecursionError):
        pass
    return json.dumps(said)


def whole(digits):
    number = int(digits)
    if number not in WHOLE:
        raise ValueError("too large for most readers")
    return number


def members(pairs):
    found = dict(pairs)
    if len(found) < len(pairs) or any("\0" in name for name in found):
        raise ValueError("a name twice, or one that ends early for some readers")
    return found


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


class Rows:
    """Rows as JSON, as long as there is room."""

    def __init__(self, limit):
        self.limit, self.rows, self.bytes, self.truncated = limit, [], 0, False

    def take(self, row):
        """Whether there was room for it."""
        array = f"[{','.join(row)}]"
        self.bytes += len(array.encode()) + 1
        self.truncated = len(self.rows) >= self.limit or self.bytes > MAX_BYTES
        if not self.truncated:
            self.rows.append(array)
        return not self.truncated


class Session:
    """One read-only transaction, within `seconds`."""

    def __init__(self, connection, seconds):
        self.connection = connection
        self.until = time.monotonic() + seconds
        self.send("BEGIN READ ONLY")

    def send(self, statement, *parameters):
        """Runs one statement; raises Refused. Two are refused by the server, with parameters and without."""
        result = self.connection.exec_params(statement.encode(), [parameter.encode() for parameter in parameters] or None)
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise refusal(result)
        return result

    def run(self, statement, *parameters):
        """Runs one statement within what is left."""
        self.hurry()
        return self.send(statement, *parameters)

    def hurry(self):
        """The next statement has what is left. Set anew each time: what a query calls may change settings."""
        left = max(1, int((self.until - time.monotonic()) * 1000))
        self.send("SELECT pg_catalog.set_config('statement_timeout', $1, true)", str(left))

    def query(self, sql, limit):
        self.run(f"DECLARE answer NO SCROLL CURSOR FOR {sql}")
        portal = self.connection.describe_portal(b"answer")
        if portal.status != ExecStatus.COMMAND_OK:
            raise refusal(portal)
        columns = [Column(portal, i) for i in range(portal.nfields)]
        described, rows, batch = self.described(columns), Rows(limit), 1
        while not rows.truncated:
            # One more than asked for, to know whether there are more.
            asked = min(batch, limit + 1 - len(rows.rows))
            if self.fetch(asked, rows, columns) < asked:
                break
            batch = min(batch * 2, BATCH)
        return rows, described

    def fetch(self, count, rows, columns):
        """Takes so many rows of the answer, and says how many there were. They come each by itself: large ones are not held together. Those
        that there is no room for go with the connection."""
        self.hurry()
        self.connection.send_query_params(f"FETCH FORWARD {count} FROM answer".encode(), None)
        self.connection.set_single_row_mode()
        fetched = 0
        while not rows.truncated and (result := self.connection.get_result()):
            if result.status not in (ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_OK):
                raise refusal(result)
            for row in range(result.ntuples):
                rows.take([encode(result.get_value(row, i), column.kind) for i, column in enumerate(columns)])
                fetched += 1
        return fetched

    def described(self, columns):
        """The columns with the names of their types, as psql shows them."""
        arrays = [",".join(str(number) for number in numbers) for numbers in ([c.kind for c in columns], [c.modifier for c in columns])]
        named = self.run(
            "SELECT pg_catalog.format_type(kind, modifier) FROM ROWS FROM"
            " (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int4[])) AS asked(kind, modifier)",
            *(f"{{{array}}}" for array in arrays),
        )
        return [{"name": column.name, "type": text(named.get_value(i, 0))} for i, column in enumerate(columns)]


class Column:
    def __init__(self, result, index):
        self.name, self.kind, self.modifier = text(result.fname(index)), result.ftype(index), result.fmod(index)


def refusal(result):
    """What the server says against a statement."""
    fields = {"sqlstate": DiagnosticField.SQLSTATE, "hint": DiagnosticField.MESSAGE_HINT}
    more = {name: text(result.error_field(field)) for name, field in fields.items() if result.error_field(field)}
    message = text(result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message)
    if more.get("sqlstate") == TIMED_OUT:
        message += "; ask for less, or give `timeout_seconds`"
    return Refused(message, **more)


def text(raw):
    return raw.decode("utf-8", "replace").strip()[:1024]


def connect(url):
    verifies = conninfo_to_dict(url).get("sslmode", "").startswith("verify-")
    options = {"sslrootcert": ROOTS} if verifies else {}
    options |= {"connect_timeout": CONNECT_SECONDS, "client_encoding": "UTF8", "application_name": "mayfly postgres_query"}
    return psycopg.connect(url, **options)


def answer(raw, url):
    sql, limit, seconds = parse(raw)
    try:
        connection = connect(url)
    except psycopg.Error as error:
        raise Refused(f"the database cannot be reached: {str(error).strip()[:1024]}") from None
    with contextlib.closing(connection):
        rows, columns = Session(connection.pgconn, seconds).query(sql, limit)
    head = json.dumps({"columns": columns, "count": len(rows.rows), "truncated": rows.truncated})
    return f'{head[:-1]}, "rows": [{",".join(rows.rows)}]}}'


def main():
    try:
        url = os.environ.get("DATABASE_URL")
        if not url:
            raise Refused("there is no DATABASE_URL: the tool's credential is missing")
        result, status = answer(sys.stdin.buffer.read(), url), 0
    except Refused as error:
        result, status = json.dumps({"error": str(error), **error.more}), 1
    sys.stdout.write(result)
    return status


if __name__ == "__main__":
    sys.exit(main())
