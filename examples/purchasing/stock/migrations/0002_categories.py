from django.db import migrations

NAMES = ["Fasteners", "Castings", "Electronics"]


def create(apps, schema_editor):
    category = apps.get_model("stock", "Category")
    category.objects.bulk_create([category(name=name) for name in NAMES])


def remove(apps, schema_editor):
    apps.get_model("stock", "Category").objects.filter(name__in=NAMES).delete()


class Migration(migrations.Migration):
    dependencies = [("stock", "0001_initial")]

    operations = [migrations.RunPython(create, remove)]
