from django.urls import path

from shop.views import books

urlpatterns = [path("books/", books, name="books")]
