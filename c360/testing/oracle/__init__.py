"""The oracle: what the topics must hold, recomputed from the input, slowly and naively.

Written from what the design pages mean, it shares no code with what it checks: no agent, codec, cell or table. It reads
the declarations and calls the user's own functions; the rest is lists, dictionaries, Decimals and the standard library.

| module | answers |
|---|---|
| `plain` | what does this JSON say; how is a value written |
| `values` | does this JSON fit the declared type, and as which Python value |
| `envelope` | what does this Debezium record say of which row |
| `links` | which identifiers a record says are its subject's |
| `governed` | which governed records, misfits and link facts come of one raw partition |
| `identity` | who is one customer, by these link facts and rules |
| `profiles` | which profile records come of these governed records, and of who is one customer |
"""
