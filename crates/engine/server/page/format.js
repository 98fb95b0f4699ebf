"use strict";

// Numbers and times as people read them.

const NUMBERS = new Intl.NumberFormat("en");

/** Milliseconds since 1970 that JavaScript has dates for. */
const LAST_MOMENT = 8.64e15;

const format = {
  /** A number with its thousands apart. */
  count(number) {
    return NUMBERS.format(Math.round(number));
  },

  /** Three or four digits that matter, whatever the size. */
  short(number) {
    if (number === null || !Number.isFinite(number)) return "NaN";
    const size = Math.abs(number);
    if (size >= 100 || number === 0) return format.count(number);
    if (size >= 10) return number.toFixed(1);
    if (size >= 0.01) return String(Number(number.toFixed(size >= 1 ? 2 : 3)));
    return number.toExponential(1).replace("e-0", "e-");
  },

  loss(number) {
    return number === null ? "NaN" : number.toFixed(number < 10 ? 3 : 1);
  },

  /** Milliseconds of a time in microseconds. */
  millis(micros) {
    const millis = micros / 1000;
    return `${millis >= 100 ? format.count(millis) : millis.toFixed(1)} ms`;
  },

  /** A time in microseconds, in the units that fit it. */
  duration(micros) {
    const seconds = Math.max(0, micros / 1e6);
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    const [whole, minutes, hours] = [Math.round(seconds), Math.floor(seconds / 60), Math.floor(seconds / 3600)];
    if (whole < 60) return `${whole} s`;
    if (hours < 1) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
    if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
    return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  },

  /** A moment in microseconds since 1970; the last day of the calendar for those after it. */
  date(micros) {
    return new Date(Math.min(micros / 1000, LAST_MOMENT));
  },

  /** Time of day of a moment in microseconds since 1970; with its date if that is not today's. */
  clock(micros) {
    const moment = format.date(micros);
    const time = moment.toLocaleTimeString("en-GB");
    const is_today = moment.toDateString() === new Date().toDateString();
    return is_today ? time : `${moment.toLocaleDateString("en-CA")} ${time}`;
  },

  percent(part) {
    return `${(100 * part).toFixed(1)} %`;
  },
};
