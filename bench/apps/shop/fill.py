"""Makes the database anew: `BENCH_DATABASE=file python -m shop.fill`."""

import datetime
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from django.db import connection  # noqa: E402

from shop.models import Book  # noqa: E402

if os.path.exists(os.environ["BENCH_DATABASE"]):
    os.remove(os.environ["BENCH_DATABASE"])
with connection.schema_editor() as editor:
    editor.create_model(Book)
Book.objects.bulk_create(
    Book(
        title=f"Book {number:04}",
        author=f"Author {number % 37}",
        price=f"{number % 60}.95",
        published=datetime.date(2000, 1, 1) + datetime.timedelta(days=number),
    )
    for number in range(200)
)
