// How numbers, times and sizes are written. Integers are exact however large: they come as
// numbers or as strings of digits, and only their text is grouped.

export function integer(value) {
  if (value === null || value === undefined || value === "") return "—";
  const digits = String(value);
  const body = digits.replace(/^-/, "").replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return digits.startsWith("-") ? `−${body}` : body;
}

export function big(value) {
  return BigInt(value === null || value === undefined || value === "" ? 0 : value);
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const compact = (value) => short.format(Number(value)).replace("-", "−");

export function rate(value) {
  if (value >= 1000) return compact(value);
  return value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1);
}

export function bytes(value) {
  let size = Number(value);
  for (const unit of ["B", "KB", "MB", "GB", "TB"]) {
    if (size < 1000 || unit === "TB") return `${size >= 100 || unit === "B" ? size.toFixed(0) : size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return "";
}

export function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "—";
  const ms = seconds * 1000;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  return ms >= 1 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(2)} ms`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

// "2026-11-26 14:45:03" of an RFC 3339 text in UTC.
export function moment(text) {
  return text ? text.slice(0, 19).replace("T", " ").replace("Z", "") : "—";
}

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

// A period in words: the month that it is, or from when to when (UTC).
export function period(start, end) {
  if (!start || !end) return "";
  const from = new Date(start), next = new Date(Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + 1, 1));
  if (from.getUTCDate() === 1 && start.includes("T00:00:00Z") && Date.parse(end) === next.getTime()) {
    return `${MONTHS[from.getUTCMonth()]} ${from.getUTCFullYear()}`;
  }
  if (Date.parse(end) - Date.parse(start) > 20 * 366 * 86400e3) return "all time";
  if (start.includes("T00:00:00Z") && end.includes("T00:00:00Z")) {
    const short = (at) => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()].slice(0, 3)}`;
    const until = new Date(end), isOneYear = from.getUTCFullYear() === until.getUTCFullYear();
    return `${short(from)}${isOneYear ? "" : ` ${from.getUTCFullYear()}`} to ${short(until)} ${until.getUTCFullYear()}`;
  }
  return `${moment(start)} to ${moment(end)}`;
}

// Outcomes and aggregations in words: "unknown_metric" -> "unknown metric".
export const words = (name) => String(name).toLowerCase().replaceAll(/[_-]/g, " ");

export const plural = (count, one, many) => `${integer(count)} ${String(count) === "1" ? one : many || `${one}s`}`;

const AMBIGUOUS = /\.(json|csv)$/;

// Where the page of an account is, by the text that names it.
export const accountPath = (text) =>
  `/ui/accounts/${encodeURIComponent(text)}${AMBIGUOUS.test(text) ? "?page=1" : ""}`;
