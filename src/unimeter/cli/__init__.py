"""The command line: one module a verb, thin over the client.

What a verb does is the library's doing; a verb only turns words into calls and
answers into rows. The rules every verb keeps:

- data goes to stdout, words go to stderr, so that ``unimeter query ... --json``
  can be piped without a filter;
- the same rows as a table, ``--json``, ``--csv`` or ``--ndjson`` (`output`);
- a failure is one line on stderr and an exit code from one table
  (`exit_codes`), never a traceback;
- amounts are integers or exact decimals (`amounts`), instants are nanoseconds
  (`moments`): no float is ever made from what was typed or read from a file.

`main` holds the group and imports a verb only when it is asked for, because a
shell loop that calls ``unimeter query`` pays for every import each time.
The reference page is made from the help texts by `reference`.
"""
