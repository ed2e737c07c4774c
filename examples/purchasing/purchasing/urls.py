from django.contrib import admin
from django.urls import path
from stock import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("orders/<int:pk>/receive/", views.receive, name="receive"),
    path("parts/<int:pk>/reprice/", views.reprice, name="reprice"),
]
