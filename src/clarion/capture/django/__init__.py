"""The Django app: changes that an application's models make carry who made them and as part of what.

    INSTALLED_APPS = [..., "clarion.capture.django"]
    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware",
                  "clarion.capture.django.middleware.acting_middleware"]

The middleware acts for the request's user. Elsewhere, as in a management command, `with clarion.acting(…):` does.
"""
