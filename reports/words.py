"""What reports and pages say, in English and Persian: words, numbers, dates and lengths of time.

Persian gets its own digits and separators. Dates are Gregorian with the month's name, in UTC.
Text from data never goes through here: ids and errors stay as they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from types import MappingProxyType
from typing import Literal

__all__ = ["LANGUAGES", "TEXT", "Language", "Words"]

Language = Literal["en", "fa"]
LANGUAGES: tuple[Language, ...] = ("en", "fa")
PERSIAN_SIGNS = str.maketrans("0123456789,.%", "۰۱۲۳۴۵۶۷۸۹٬٫٪")
NOTHING = "–"

# word: English, Persian
_BOTH: dict[str, tuple[str, str]] = {
    # the frame
    "report": ("Sync report", "گزارش همگام‌سازی"),
    "period": ("Period", "دوره"),
    "generated": ("Made", "تهیه‌شده"),
    "to": ("{a} to {b}", "{a} تا {b}"),
    "page": ("Page {a} of {b}", "صفحهٔ {a} از {b}"),
    "more": ("and {n} more", "و {n} مورد دیگر"),
    "none": ("None.", "موردی نیست."),
    "unshown": (
        "Signs that the fonts of this file lack are written by their code, as in JSON; report.md has them as they are.",
        "نویسه‌هایی که در قلم‌های این پرونده نیستند مانند JSON با کد نوشته شده‌اند؛ در report.md به شکل اصلی هستند.",
    ),
    # status and outcome
    "ok": ("ok", "خوب"),
    "warning": ("warning", "هشدار"),
    "error": ("error", "خطا"),
    "unknown": ("unknown", "نامعلوم"),
    "fresh": ("fresh", "تازه"),
    "late": ("late", "دیرکرده"),
    "changed": ("changed", "تغییر‌کرده"),
    "unchanged": ("unchanged", "بی‌تغییر"),
    "refused": ("refused", "ردشده"),
    "failed": ("failed", "ناموفق"),
    "running": ("running", "در حال اجرا"),
    "open": ("open", "باز"),
    "retrying": ("retry pending", "در انتظار تلاش دوباره"),
    "resolved": ("resolved", "رفع‌شده"),
    "insert": ("insert", "افزودن"),
    "update": ("update", "به‌روزرسانی"),
    "delete": ("delete", "حذف"),
    "inserted": ("inserted", "افزوده"),
    "updated": ("updated", "به‌روزشده"),
    "deleted": ("deleted", "حذف‌شده"),
    # the verdict
    "verdict_ok": ("Everything is in order.", "همه‌چیز مرتب است."),
    "verdict_empty": ("No runs in this period.", "در این دوره هیچ اجرایی نبوده است."),
    "verdict_warning": ("Worth a look: {n}.", "نیاز به نگاه: {n}."),
    "verdict_error": ("Needs attention: {n}.", "نیاز به رسیدگی: {n}."),
    "errors_one": ("1 error", "۱ خطا"),
    "errors_many": ("{n} errors", "{n} خطا"),
    "warnings_one": ("1 warning", "۱ هشدار"),
    "warnings_many": ("{n} warnings", "{n} هشدار"),
    "and": ("{a}, {b}", "{a} و {b}"),
    # sections
    "attention": ("Needs attention", "نیازمند رسیدگی"),
    "attention_none": ("Nothing needs attention.", "چیزی نیاز به رسیدگی ندارد."),
    "failures": ("Failures", "اجراهای ناموفق"),
    "failures_none": ("No run failed or was refused.", "هیچ اجرایی ناموفق یا رد نشد."),
    "sources": ("Sources: last run and freshness", "منبع‌ها: آخرین اجرا و تازگی"),
    "sources_none": ("No source is configured and none ran.", "هیچ منبعی تنظیم یا اجرا نشده است."),
    "week": ("Last 7 days", "۷ روز گذشته"),
    "week_none": ("No runs in these days.", "در این روزها اجرایی نبود."),
    "totals": ("The period in numbers", "دوره به زبان اعداد"),
    "per_source": ("Numbers by source", "اعداد هر منبع"),
    "dora": ("Delivery (DORA's four)", "تحویل (چهار سنجهٔ DORA)"),
    "dora_note": (
        "A delivery is a run that changed something. Intervals are 95 %.",
        "تحویل یعنی اجرایی که چیزی را تغییر داد. بازه‌ها ۹۵٪ هستند.",
    ),
    "feedback": ("Feedback score", "نمرهٔ بازخورد"),
    "feedback_note": (
        "{score} of 100, 90 % interval {low} to {high}. Points: what would be gained without the signal.",
        "{score} از ۱۰۰، بازهٔ ۹۰٪ از {low} تا {high}. امتیاز: آنچه بدون این نشانه به دست می‌آمد.",
    ),
    "anomalies": ("Anomalies", "ناهنجاری‌ها"),
    "changes": ("Newest changes", "تازه‌ترین تغییرها"),
    "commits": ("Commits", "کامیت‌ها"),
    "quarantine": ("In quarantine", "در قرنطینه"),
    # columns
    "status": ("Status", "وضعیت"),
    "source": ("Source", "منبع"),
    "what": ("What", "چه چیزی"),
    "todo": ("What to do", "چه باید کرد"),
    "time": ("Time (UTC)", "زمان (UTC)"),
    "run": ("Run", "اجرا"),
    "runs": ("Runs", "اجراها"),
    "day": ("Day", "روز"),
    "last_run": ("Last run (UTC)", "آخرین اجرا (UTC)"),
    "outcome": ("Outcome", "نتیجه"),
    "age": ("Last success ago", "از آخرین موفقیت"),
    "limits": ("Warn / error after", "مهلت هشدار / خطا"),
    "success": ("Success", "موفقیت"),
    "availability": ("On time", "سر وقت"),
    "p50": ("p50", "صدک ۵۰"),
    "p95": ("p95", "صدک ۹۵"),
    "retries": ("Retries", "تلاش دوباره"),
    "quarantined": ("quarantined", "قرنطینه"),
    "incidents": ("Incidents", "رخدادها"),
    "measure": ("Measure", "سنجه"),
    "value": ("Value", "مقدار"),
    "interval": ("Interval", "بازه"),
    "cases": ("Cases", "موردها"),
    "signal": ("Signal", "نشانه"),
    "bad_of": ("Bad / all", "بد / همه"),
    "points": ("Points", "امتیاز"),
    "series": ("Series", "سری"),
    "expected": ("Expected", "مورد انتظار"),
    "collection": ("Collection", "مجموعه"),
    "id": ("Id", "شناسه"),
    "changes_short": ("Changes", "تغییرها"),
    "op": ("Change", "تغییر"),
    "commit": ("Commit", "کامیت"),
    "subject": ("Subject", "موضوع"),
    "reason": ("Reason", "دلیل"),
    "rows": ("Rows", "ردیف‌ها"),
    "seen": ("Last seen (UTC)", "آخرین بار (UTC)"),
    # measures
    "duration": ("Duration of a run, p50 / p95", "مدت هر اجرا، میانه / صدک ۹۵"),
    "change_count": ("Changes: inserted / updated / deleted", "تغییرها: افزوده / به‌روزشده / حذف‌شده"),
    "downtime": ("Data downtime", "زمان نادرستی داده"),
    "downtime_text": ("{time} in {n} incidents, {open} open", "{time} در {n} رخداد، {open} باز"),
    "refused_rows": ("Rows sent to quarantine", "ردیف‌های فرستاده‌شده به قرنطینه"),
    "success_long": ("Runs that succeeded", "اجراهای موفق"),
    "availability_long": ("Planned runs that succeeded in time", "اجراهای برنامه‌ریزی‌شدهٔ موفق و به‌موقع"),
    "deployments": ("Deliveries a day", "تحویل در روز"),
    "lead_time": ("Lead time (median)", "زمان رسیدن (میانه)"),
    "change_failure": ("Deliveries followed by a failure", "تحویل‌هایی که شکست در پی داشتند"),
    "restore": ("Time to restore (median)", "زمان بازیابی (میانه)"),
    "of": ("{a} of {b}", "{a} از {b}"),
    # signals of the feedback score
    "reverted": ("automatic commits that were reverted", "کامیت‌های خودکار که برگردانده شدند"),
    "hand_fixed": ("automatic commits fixed by hand within 24 hours", "کامیت‌های خودکار که ظرف ۲۴ ساعت دستی اصلاح شدند"),
    "failed_run": ("runs that failed", "اجراهای ناموفق"),
    "alert_ignored": ("alerts that nobody acknowledged", "هشدارهایی که کسی تأیید نکرد"),
    "negative_comment": ("comments that were negative", "نظرهای منفی"),
    # what needs attention
    "is_late": ("last success {age} ago, past its limit", "آخرین موفقیت {age} پیش، بیش از مهلت"),
    "never": ("never succeeded", "هرگز موفق نبوده است"),
    "runs_long": (
        "a run has not ended for {age}; if its program is gone, the next run goes on from there",
        "اجرایی {age} است که پایان نیافته؛ اگر برنامه‌اش بسته شده، اجرای بعدی از همان‌جا ادامه می‌دهد",
    ),
    "notices_wait": ("Notices that wait for delivery: {n}", "اعلان‌های در انتظار ارسال: {n}"),
    "rows_wait": ("{n} rows wait in quarantine: {reason}", "{n} ردیف در قرنطینه: {reason}"),
    "is_unusual": (
        "{series} was {value}, expected {low} to {high}",
        "{series} برابر {value} بود، انتظار {low} تا {high}",
    ),
    "is_unusual_bare": ("{series} was {value}, which is unusual", "{series} برابر {value} بود که نامعمول است"),
    "do_run": ("run: {command}", "اجرا کنید: {command}"),
    "do_look": ("look at: {command}", "ببینید: {command}"),
    "do_compare": ("compare with the runs of that time", "با اجراهای همان زمان مقایسه کنید"),
    # charts
    "chart_runs": ("Runs a day by outcome", "اجراهای هر روز بر حسب نتیجه"),
    "chart_durations": ("Duration of a run", "مدت هر اجرا"),
    "chart_changes": ("Changes a day", "تغییرهای هر روز"),
    "chart_freshness": ("Time since the last success", "زمان از آخرین موفقیت"),
    "chart_empty": ("No runs in this period", "در این دوره اجرایی نبود"),
    "chart_lines": ("p50 and p95 of their seconds", "صدک ۵۰ و ۹۵ به ثانیه"),
    "limit_warn": ("warn limit", "مرز هشدار"),
    "limit_error": ("error limit", "مرز خطا"),
    "seconds": ("seconds", "ثانیه"),
    "not_good": ("{n} of {all} not successful", "{n} از {all} ناموفق"),
}
TEXT = MappingProxyType({language: {k: v[i] for k, v in _BOTH.items()} for i, language in enumerate(LANGUAGES)})
_MONTHS = {
    "en": "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(),
    "fa": "ژانویه فوریه مارس آوریل مه ژوئن ژوئیه اوت سپتامبر اکتبر نوامبر دسامبر".split(),
}
_UNITS = {
    "en": {"ms": "ms", "s": "s", "min": "min", "h": "h", "d": "d"},
    "fa": {"ms": "میلی‌ثانیه", "s": "ثانیه", "min": "دقیقه", "h": "ساعت", "d": "روز"},
}
_LENGTHS = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


class Words:
    """Everything that is said in one language. None and NaN are said as a dash.

    Raises:
        KeyError: A language or word that is not there.
    """

    def __init__(self, language: Language) -> None:
        self.language = language
        self.direction: Literal["ltr", "rtl"] = "rtl" if language == "fa" else "ltr"
        self._text, self._months, self._units = TEXT[language], _MONTHS[language], _UNITS[language]

    def __call__(self, word: str, **values: str) -> str:
        return self._text[word].format(**values) if values else self._text[word]

    def local(self, text: str) -> str:
        """A number written in English, in this language's digits and signs."""
        return text.translate(PERSIAN_SIGNS) if self.language == "fa" else text

    def number(self, value: float | None, digits: int = 0) -> str:
        """1234.5 with `digits` decimals, thousands apart; very large and very small ones by their power of ten."""
        if value is None or not isfinite(value):
            return NOTHING
        large = abs(value) >= 1e15 or 0 < abs(value) < 10**-digits / 2
        text = f"{value:.2e}" if large else f"{value:,.{digits}f}"
        return self.local(text.replace("-", "\u2212"))

    def brief(self, value: float | None) -> str:
        """A number of any size with about three digits that count; whole ones as they are."""
        if value is None or not isfinite(value):
            return NOTHING
        return self.number(value, 0 if value == int(value) or abs(value) >= 100 else 2)

    def share(self, value: float | None, digits: int = 1) -> str:
        """0.985 as 98.5 %."""
        if value is None or not isfinite(value):
            return NOTHING
        return self.local(f"{value * 100:.{0 if value in (0, 1) else digits}f}%")

    def duration(self, seconds: float | None) -> str:
        """A length of time in its two largest units."""
        if seconds is None or not isfinite(seconds):
            return NOTHING
        if abs(seconds) < 59.95:
            if 0 < seconds < 0.9995:
                return f"{self.number(max(1, round(seconds * 1000)))} {self._units['ms']}"
            return f"{self.number(seconds, 1 if seconds % 1 and seconds < 9.95 else 0)} {self._units['s']}"
        unit, size, small, part = next((u for u in _LENGTHS if seconds >= u[1]), _LENGTHS[-1])
        parts = round(seconds / part)
        whole, rest = divmod(parts, size // part)
        text = f"{self.number(whole)} {self._units[unit]}"
        joint = " و " if self.language == "fa" else " "
        return f"{text}{joint}{self.number(rest)} {self._units[small]}" if rest and whole < 100 else text

    def day(self, time: float, *, year: bool = False) -> str:
        """22 Nov, with the year when asked."""
        date = datetime.fromtimestamp(time, UTC)
        text = f"{self.local(str(date.day))} {self._months[date.month - 1]}"
        return f"{text} {self.local(str(date.year))}" if year else text

    def moment(self, time: float | None, *, year: bool = False) -> str:
        """22 Nov, 21:13; a heading or the text around says that it is UTC."""
        if time is None or not isfinite(time):
            return NOTHING
        comma = "،" if self.language == "fa" else ","
        return f"{self.day(time, year=year)}{comma} {self.local(f'{datetime.fromtimestamp(time, UTC):%H:%M}')}"
