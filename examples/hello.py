"""The smallest app: page views in, views and last page per person out. `c360 -A examples.hello:app plan` shows it."""

from datetime import datetime

from c360 import App, Projection, Record, count, newest

app = App("hello", partitions=3)


@app.identifier("user")
class UserId(str): ...


@app.source("page.views", event_id="id", at="ts", subject="user")
class View(Record):
    id: str
    user: UserId
    page: str
    ts: datetime


@app.projection("person")
class Person(Projection):
    views: int = count(View)
    last_page: str | None = newest(View.page)
