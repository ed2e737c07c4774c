from django.db import migrations, models
from django.db.models import F


def half_of_what_is_there(apps, schema_editor):
    apps.get_model("stock", "Part").objects.filter(on_hand__gt=0).update(reorder_level=F("on_hand") / 2)


class Migration(migrations.Migration):
    dependencies = [("stock", "0002_categories")]

    operations = [
        migrations.AddField("part", "reorder_level", models.DecimalField(decimal_places=3, default=0, max_digits=14)),
        migrations.RunPython(half_of_what_is_there, migrations.RunPython.noop),
    ]
