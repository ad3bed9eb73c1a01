"""What only the pages say, in English and Persian; everything else comes from `reports.words`."""

from __future__ import annotations

from types import MappingProxyType

from reports.words import LANGUAGES, Language, Words

__all__ = ["LANGUAGES", "Language", "Say", "page_words"]

# word: English, Persian
_BOTH: dict[str, tuple[str, str]] = {
    # the frame
    "skip": ("Skip to the content", "پرش به محتوا"),
    "overview": ("Overview", "نمای کلی"),
    "numbers": ("Numbers", "اعداد"),
    "modules": ("Modules", "بخش‌ها"),
    "pages": ("Pages", "صفحه‌ها"),
    "utc": ("Times are UTC.", "زمان‌ها به وقت UTC هستند."),
    "api": ("REST API", "REST API"),
    "updated_at": ("As of {time} UTC", "به تاریخ {time} UTC"),
    "open_numbers": ("Show the numbers", "نمایش اعداد"),
    "open_unusual": ("Look for unusual hours", "یافتن ساعت‌های نامعمول"),
    "fresh_data": ("There is something newer.", "چیز تازه‌تری هست."),
    "reload": ("Show it", "نمایش"),
    "older": ("Older", "قدیمی‌تر"),
    "newest": ("Newest", "تازه‌ترین"),
    "all": ("all", "همه"),
    "filter": ("Filter", "پالایش"),
    "apply": ("Apply", "اعمال"),
    "clear": ("Clear", "پاک کردن"),
    "since": ("From (UTC)", "از (UTC)"),
    "until": ("Until (UTC)", "تا (UTC)"),
    "nothing_found": ("Nothing matches.", "چیزی پیدا نشد."),
    "table": ("The same as a table", "همین به شکل جدول"),
    "ago": ("{age} ago", "{age} پیش"),
    "see_run": ("See the run", "دیدن اجرا"),
    "see_all_changes": ("All changes", "همهٔ تغییرها"),
    # empty
    "empty_title": ("Nothing was synced yet", "هنوز چیزی همگام نشده است"),
    "empty_text": (
        "This page fills itself as soon as the first run has ended. Start one:",
        "این صفحه با پایان نخستین اجرا خودش پر می‌شود. یک اجرا را آغاز کنید:",
    ),
    "empty_plan": ("See first what it would do:", "نخست ببینید چه خواهد کرد:"),
    "empty_up": ("Or run on schedule, with Prefect's own pages:", "یا طبق برنامه اجرا کنید، همراه صفحه‌های Prefect:"),
    "empty_sources": ("Configured sources", "منبع‌های تنظیم‌شده"),
    "empty_none": ("autosync.toml names no source yet.", "هنوز منبعی در autosync.toml نیست."),
    # status
    "verdict_unknown": ("Waiting for the first successful run.", "در انتظار نخستین اجرای موفق."),
    "off": ("off", "خاموش"),
    "warn": ("late", "دیرکرده"),
    "done": ("done", "انجام‌شده"),
    "yes": ("yes", "بله"),
    "no": ("no", "نه"),
    # attention
    "rows_held": ("Rows in quarantine: {n}. {reason}", "ردیف‌های قرنطینه: {n}. {reason}"),
    "do_outbox": ("run: autosync health", "اجرا کنید: autosync health"),
    "do_status": ("run: autosync status", "اجرا کنید: autosync status"),
    # overview
    "sources_title": ("Sources", "منبع‌ها"),
    "records": ("Records", "رکوردها"),
    "last": ("Last run", "آخرین اجرا"),
    "success_ago": ("Last success", "آخرین موفقیت"),
    "held_rows": ("In quarantine", "در قرنطینه"),
    "behind_title": ("Not yet delivered", "هنوز نرسیده"),
    "chart_delay": ("Delay: planned time to end", "تأخیر: از زمان برنامه تا پایان"),
    "chart_runs_day": ("Runs a day", "اجراها در روز"),
    "chart_runs_hour": ("Runs an hour", "اجراها در ساعت"),
    "median": ("median", "میانه"),
    "p95_long": ("95th percentile", "صدک ۹۵"),
    "key_numbers": ("Last 30 days", "۳۰ روز گذشته"),
    "locks_title": ("Held now by", "اکنون در اختیار"),
    # runs and changes
    "run_title": ("Run of {source}", "اجرای {source}"),
    "started": ("Started", "آغاز"),
    "planned": ("Planned", "برنامه"),
    "ended": ("Ended", "پایان"),
    "took": ("Took", "مدت"),
    "stages": ("Stages", "مرحله‌ها"),
    "stages_none": ("The stages are noted when the run ends.", "مرحله‌ها با پایان اجرا ثبت می‌شوند."),
    "timeline": ("Timeline", "خط زمان"),
    "in_prefect": ("Open in Prefect", "باز کردن در Prefect"),
    "in_api": ("As JSON", "به شکل JSON"),
    "seq": ("Seq", "شماره"),
    "run_changes": ("Changes of this run", "تغییرهای این اجرا"),
    "run_changes_none": ("This run changed nothing.", "این اجرا چیزی را تغییر نداد."),
    "changes_title": ("Changes", "تغییرها"),
    "became": ("became", "شد"),
    "absent": ("(absent)", "(نبود)"),
    "more_fields": ("and {n} more; see the record", "و {n} مورد دیگر؛ رکورد را ببینید"),
    "whole": ("The whole record", "کل رکورد"),
    "record": ("Record", "رکورد"),
    "record_now": ("Now", "اکنون"),
    "record_gone": ("This record was deleted.", "این رکورد حذف شده است."),
    "versions": ("Every version, newest first", "همهٔ نسخه‌ها، تازه‌ترین نخست"),
    # numbers
    "numbers_title": ("Numbers of the last {n} days", "اعداد {n} روز گذشته"),
    "success_share": ("Success", "موفقیت"),
    "typical": ("Typical run", "اجرای معمول"),
    "delivered_a_day": ("Deliveries a day", "تحویل در روز"),
    "total": ("All sources", "همهٔ منبع‌ها"),
    "anomalies_none": ("No hour was unusual.", "هیچ ساعتی نامعمول نبود."),
    "series_runs": ("number of runs", "شمار اجراها"),
    "series_unsuccessful": ("number of failed runs", "شمار اجراهای ناموفق"),
    "series_changes": ("number of changes", "شمار تغییرها"),
    "series_quarantined": ("number of quarantined rows", "شمار ردیف‌های قرنطینه"),
    "series_duration_p50": ("duration of a run in seconds", "مدت هر اجرا به ثانیه"),
    "is_pattern": (
        "{series}: {value}, after hours that went unlike those before",
        "{series}: {value}، پس از ساعت‌هایی که مانند گذشته نبودند",
    ),
    "retry_count": ("Retries", "تلاش دوباره"),
    "down": ("Data downtime", "زمان نادرستی داده"),
    # modules
    # login and errors
    "login": ("Sign in", "ورود"),
    "token": ("Token", "توکن"),
    "login_text": (
        "This dashboard asks for its token (AUTOSYNC_DASHBOARD_TOKEN).",
        "این داشبورد توکن خود را می‌خواهد (AUTOSYNC_DASHBOARD_TOKEN).",
    ),
    "login_wrong": ("That is not the token.", "این توکن درست نیست."),
    "back": ("Back to the overview", "بازگشت به نمای کلی"),
    "error_404": ("Not found", "پیدا نشد"),
    "error_422": ("This can't be shown", "نمی‌توان نشان داد"),
    "error_503": ("The database can't be read just now", "پایگاه داده اکنون خوانده نمی‌شود"),
    "error_500": ("Something went wrong", "مشکلی پیش آمد"),
    "error_404_text": ("There is nothing at this address.", "چیزی در این نشانی نیست."),
    "error_422_text": ("A part of the address is wrong.", "بخشی از نشانی نادرست است."),
    "error_503_text": (
        "Try again in a moment, or run: autosync health",
        "کمی بعد دوباره تلاش کنید، یا: autosync health",
    ),
    "error_500_text": ("The log says what happened.", "گزارش رخدادها علت را می‌گوید."),
}
_TEXT = MappingProxyType({language: {k: v[i] for k, v in _BOTH.items()} for i, language in enumerate(LANGUAGES)})


def page_words() -> dict[str, tuple[str, str]]:
    """The words of the pages in both languages."""
    return dict(_BOTH)


class Say(Words):
    """Everything that the pages say in one language."""

    def __call__(self, word: str, **values: str) -> str:
        own = _TEXT[self.language].get(word)
        if own is None:
            return super().__call__(word, **values)
        return own.format(**values) if values else own

    def age(self, seconds: float) -> str:
        """How long ago something was, to the minute when that is fine enough."""
        return self.duration(round(seconds) if seconds < 120 else round(seconds / 60) * 60)

    def isolated(self, text: str) -> str:
        """Text from data inside a sentence of ours, kept from turning its neighbours around."""
        return f"\u2068{text}\u2069" if self.direction == "rtl" else text
