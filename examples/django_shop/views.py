from django.shortcuts import get_object_or_404, render

from .models import Book

ROWS = 12


def books(request):
    return render(request, "django_shop/books.html", {"books": Book.objects.filter(price__gt=5)[:ROWS]})


def book(request, number):
    return render(request, "django_shop/book.html", {"book": get_object_or_404(Book, pk=number)})
