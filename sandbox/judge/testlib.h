// testlib.h for plaudit's checkers, interactors and generators.
//
// Written from the public description of the interface that contest checkers are written against; none of the
// original's text is in it. What a program says to the judge with it is an exit code and a first line on stderr:
//
//   _ok 0, _wa 1, _pe 2, _fail 3, _dirt 4, _points 7 ("points X" first, X in [0, 1]), _unexpected_eof 8
//   _pc(x) is _points with x / 100
//
// Where it differs from the original: random numbers are another sequence; there are no validators' reports; points
// lie in [0, 1]; a checker that returns without a verdict has failed (3).
#ifndef PLAUDIT_TESTLIB_H
#define PLAUDIT_TESTLIB_H

#include <algorithm>
#include <cassert>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <limits>
#include <list>
#include <map>
#include <queue>
#include <set>
#include <sstream>
#include <stack>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

const int EOFC = 255;
const char LF = '\n', CR = '\r', TAB = '\t', SPACE = ' ';
const int OK_EXIT_CODE = 0, WA_EXIT_CODE = 1, PE_EXIT_CODE = 2, FAIL_EXIT_CODE = 3, DIRT_EXIT_CODE = 4,
          POINTS_EXIT_CODE = 7, UNEXPECTED_EOF_EXIT_CODE = 8;

enum TResult { _ok = 0, _wa = 1, _pe = 2, _fail = 3, _dirt = 4, _points = 5, _unexpected_eof = 8, _partially = 16 };
#define _pc(exitCode) (TResult(_partially + (exitCode)))

enum TMode { _input, _output, _answer };
enum TTestlibMode { _unknown, _checker, _validator, _generator, _interactor };

namespace plaudit {

struct State {
    TTestlibMode mode = _unknown;
    bool ended = false;
    int test_case = -1;
    std::string checker_name, report;
    ~State();
};

inline State &state() {
    static State only;
    return only;
}

inline std::string vformat(const char *form, va_list args) {
    va_list again;
    va_copy(again, args);
    int size = std::vsnprintf(nullptr, 0, form, again);
    va_end(again);
    if (size < 0) return form;
    std::string text(size_t(size) + 1, '\0');
    std::vsnprintf(&text[0], text.size(), form, args);
    text.resize(size_t(size));
    return text;
}

[[noreturn]] inline void leave(int code, const std::string &line) {
    state().ended = true;
    std::fflush(stdout);
    std::cout.flush();
    std::fprintf(stderr, "%s\n", line.c_str());
    if (!state().report.empty()) std::ofstream(state().report.c_str()) << line << "\n";
    std::exit(code);
}

inline State::~State() {
    if (ended || (mode != _checker && mode != _interactor)) return;
    std::fprintf(stderr, "FAIL it ended without quit, quitf or quitp\n");
    _exit(FAIL_EXIT_CODE);
}

}  // namespace plaudit

#define PLAUDIT_FORMATTED(text, form)                \
    va_list args_;                                   \
    va_start(args_, form);                           \
    std::string text = plaudit::vformat(form, args_); \
    va_end(args_)

#define PLAUDIT_PRINTF(at) __attribute__((format(printf, at, at + 1)))

// --- texts -----------------------------------------------------------------------------------------------------------

inline std::string format(const char *form, ...) PLAUDIT_PRINTF(1);
inline std::string format(const char *form, ...) {
    PLAUDIT_FORMATTED(text, form);
    return text;
}
inline std::string format(const std::string form, ...) {
    PLAUDIT_FORMATTED(text, form.c_str());
    return text;
}

template <typename T>
inline std::string vtos(const T &value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

template <typename T>
inline std::string toString(const T &value) {
    return vtos(value);
}

inline std::string compress(const std::string &text) {
    if (text.size() <= 64) return text;
    return text.substr(0, 30) + "..." + text.substr(text.size() - 31);
}

inline std::string englishEnding(int number) {
    int last = number % 10, two = number % 100;
    if (two >= 11 && two <= 13) return "th";
    return last == 1 ? "st" : last == 2 ? "nd" : last == 3 ? "rd" : "th";
}

template <typename Iterator, typename Separator>
inline std::string join(Iterator first, Iterator last, Separator separator) {
    std::ostringstream out;
    for (bool later = false; first != last; ++first, later = true) {
        if (later) out << separator;
        out << *first;
    }
    return out.str();
}
template <typename Iterator>
inline std::string join(Iterator first, Iterator last) {
    return join(first, last, ' ');
}
template <typename Collection, typename Separator>
inline auto join(const Collection &collection, Separator separator)
    -> decltype(collection.begin(), std::string()) {
    return join(collection.begin(), collection.end(), separator);
}
template <typename Collection>
inline auto join(const Collection &collection) -> decltype(collection.begin(), std::string()) {
    return join(collection.begin(), collection.end(), ' ');
}

inline bool isBlanks(char c) { return c == LF || c == CR || c == SPACE || c == TAB; }
inline bool isEoln(char c) { return c == LF || c == CR; }
inline bool isEof(int c) { return c == EOF; }
inline bool isNaN(double value) { return std::isnan(value); }
inline bool isInfinite(double value) { return std::isinf(value); }

inline std::string upperCase(std::string text) {
    for (char &c : text) c = char(std::toupper((unsigned char)c));
    return text;
}
inline std::string lowerCase(std::string text) {
    for (char &c : text) c = char(std::tolower((unsigned char)c));
    return text;
}
inline std::string trim(const std::string &text) {
    size_t first = 0, last = text.size();
    while (first < last && isBlanks(text[first])) first++;
    while (last > first && isBlanks(text[last - 1])) last--;
    return text.substr(first, last - first);
}

// `split` keeps empty parts, `tokenize` drops them.
inline std::vector<std::string> split(const std::string &text, const std::string &separators) {
    std::vector<std::string> parts(1);
    for (char c : text) {
        if (separators.find(c) != std::string::npos)
            parts.push_back("");
        else
            parts.back() += c;
    }
    return parts;
}
inline std::vector<std::string> split(const std::string &text, char separator) {
    return split(text, std::string(1, separator));
}
inline std::vector<std::string> tokenize(const std::string &text, const std::string &separators) {
    std::vector<std::string> parts = split(text, separators);
    parts.erase(std::remove(parts.begin(), parts.end(), std::string()), parts.end());
    return parts;
}
inline std::vector<std::string> tokenize(const std::string &text, char separator) {
    return tokenize(text, std::string(1, separator));
}

template <typename T>
inline T __testlib_min(const T &a, const T &b) { return b < a ? b : a; }
template <typename T>
inline T __testlib_max(const T &a, const T &b) { return a < b ? b : a; }
template <typename T>
inline T __testlib_abs(const T &a) { return a < T(0) ? T(-a) : a; }

// --- patterns: letters, [classes], (a|b), and how often: ? * + {n} {n,m} -----------------------------------------------
//
// A match is a set of positions that moves through the pattern, so no text can make it take long.

class pattern {
    struct Node {
        enum Kind { one, sequence, choice } kind = one;
        bool member[256] = {};
        std::vector<Node> parts;
        long long least = 1, most = 1;
    };
    using Places = std::vector<char>;

    std::string source;
    Node root;

    [[noreturn]] void bad(const std::string &why) const {
        plaudit::leave(FAIL_EXIT_CODE, "FAIL pattern \"" + source + "\": " + why);
    }
    unsigned char letter(size_t &at) const {
        if (at < source.size() && source[at] == '\\') at++;
        if (at >= source.size()) bad("it ends too early");
        return (unsigned char)source[at++];
    }
    Node parseChoice(size_t &at) const {
        Node whole;
        whole.kind = Node::choice;
        whole.parts.push_back(parseSequence(at));
        while (at < source.size() && source[at] == '|') whole.parts.push_back(parseSequence(++at));
        return whole;
    }
    Node parseSequence(size_t &at) const {
        Node whole;
        whole.kind = Node::sequence;
        while (at < source.size() && source[at] != '|' && source[at] != ')') {
            Node part = parseOne(at);
            parseCount(part, at);
            whole.parts.push_back(part);
        }
        return whole;
    }
    Node parseOne(size_t &at) const {
        if (source[at] == '(') {
            Node inner = parseChoice(++at);
            if (at >= source.size() || source[at] != ')') bad("a ( is not closed");
            at++;
            return inner;
        }
        Node node;
        if (source[at] != '[') {
            if (source[at] == '.')
                at++, std::fill(node.member, node.member + 256, true);
            else
                node.member[letter(at)] = true;
            return node;
        }
        at++;
        bool inverse = at < source.size() && source[at] == '^';
        if (inverse) at++;
        while (at < source.size() && source[at] != ']') {
            unsigned char first = letter(at), last = first;
            if (at + 1 < source.size() && source[at] == '-' && source[at + 1] != ']') at++, last = letter(at);
            for (int c = first; c <= last; c++) node.member[c] = true;
        }
        if (at >= source.size()) bad("a [ is not closed");
        at++;
        if (inverse)
            for (bool &c : node.member) c = !c;
        return node;
    }
    void parseCount(Node &node, size_t &at) const {
        if (at >= source.size()) return;
        char c = source[at];
        if (c == '?') node.least = 0, node.most = 1, at++;
        else if (c == '*') node.least = 0, node.most = LLONG_MAX, at++;
        else if (c == '+') node.least = 1, node.most = LLONG_MAX, at++;
        else if (c == '{') {
            size_t end = source.find('}', at);
            if (end == std::string::npos) bad("a { is not closed");
            std::string inner = source.substr(at + 1, end - at - 1);
            size_t comma = inner.find(',');
            node.least = std::atoll(inner.c_str());
            node.most = comma == std::string::npos ? node.least
                        : comma + 1 == inner.size() ? LLONG_MAX
                                                    : std::atoll(inner.c_str() + comma + 1);
            at = end + 1;
        }
    }
    static Places once(const Node &node, const std::string &text, const Places &from) {
        Places to(from.size(), 0);
        if (node.kind == Node::one) {
            for (size_t at = 0; at + 1 < from.size(); at++)
                if (from[at] && node.member[(unsigned char)text[at]]) to[at + 1] = 1;
        } else if (node.kind == Node::choice) {
            for (const Node &part : node.parts) {
                Places found = match(part, text, from);
                for (size_t at = 0; at < to.size(); at++) to[at] |= found[at];
            }
        } else {
            to = from;
            for (const Node &part : node.parts) to = match(part, text, to);
        }
        return to;
    }
    static Places match(const Node &node, const std::string &text, const Places &from) {
        if (node.kind == Node::one && node.most > 1) return run(node, text, from);
        Places now = from, all(from.size(), 0);
        for (long long count = 0;; count++) {
            bool news = false;
            if (count >= node.least)
                for (size_t at = 0; at < all.size(); at++)
                    if (now[at] && !all[at]) all[at] = 1, news = true;
            if (count >= node.most || (count >= node.least && !news)) return all;
            Places next = once(node, text, now);
            if (count < node.least && next == now) count = std::max(count, node.least - 1);
            now = next;
            if (std::find(now.begin(), now.end(), 1) == now.end()) return all;
        }
    }
    // A letter or a class many times: how far its run goes from each place, then a sum of differences.
    static Places run(const Node &node, const std::string &text, const Places &from) {
        size_t size = from.size();
        std::vector<long long> length(size, 0), change(size + 1, 0);
        for (size_t at = size - 1; at-- > 0;)
            length[at] = node.member[(unsigned char)text[at]] ? length[at + 1] + 1 : 0;
        for (size_t at = 0; at < size; at++)
            if (from[at] && length[at] >= node.least) {
                change[at + size_t(node.least)]++;
                change[at + size_t(std::min(length[at], node.most)) + 1]--;
            }
        Places to(size, 0);
        long long depth = 0;
        for (size_t at = 0; at < size; at++) to[at] = (depth += change[at]) > 0;
        return to;
    }

public:
    pattern(std::string s) : source() {
        for (char c : s)
            if (c != ' ') source += c;
        size_t at = 0;
        root = parseChoice(at);
        if (at < source.size()) bad("a ) that opens nowhere");
    }
    bool matches(const std::string &text) const {
        Places from(text.size() + 1, 0);
        from[0] = 1;
        return match(root, text, from).back() != 0;
    }
    std::string src() const { return source; }
};

// --- numbers ---------------------------------------------------------------------------------------------------------

inline bool doubleCompare(double expected, double result, double MAX_DOUBLE_ERROR) {
    const double slack = 1e-15;
    if (std::isnan(expected) || std::isnan(result)) return std::isnan(expected) && std::isnan(result);
    if (std::isinf(expected) || std::isinf(result)) return expected == result;
    double distance = std::fabs(result - expected);
    return distance <= MAX_DOUBLE_ERROR + slack || distance <= MAX_DOUBLE_ERROR * std::fabs(expected) + slack;
}

inline double doubleDelta(double expected, double result) {
    double absolute = std::fabs(result - expected);
    return std::fabs(expected) > 1e-9 ? std::min(absolute, std::fabs(absolute / expected)) : absolute;
}

// --- random numbers, always the same for the same arguments ------------------------------------------------------------

class random_t {
    uint64_t now = 0x9E3779B97F4A7C15ull;
    uint64_t bits() {
        uint64_t z = (now += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    uint64_t below(uint64_t most) {
        if (!most) plaudit::leave(FAIL_EXIT_CODE, "FAIL random_t::next: the range is empty");
        uint64_t skip = (0 - most) % most, drawn;
        do drawn = bits();
        while (drawn < skip);
        return drawn % most;
    }

public:
    static int version;
    void setSeed(long long seed) { now = uint64_t(seed) * 0xD1B54A32D192ED03ull + 1; }
    void setSeed(int argc, char *argv[]) {
        uint64_t seed = 1469598103934665603ull;
        for (int i = 1; i < argc; i++) {
            for (const char *c = argv[i]; *c; c++) seed = (seed ^ (unsigned char)*c) * 1099511628211ull;
            seed = (seed ^ 256) * 1099511628211ull;
        }
        setSeed((long long)seed);
    }
    int next(int n) { return int(below(n > 0 ? uint64_t(n) : 0)); }
    unsigned next(unsigned n) { return unsigned(below(n)); }
    long long next(long long n) { return (long long)below(n > 0 ? uint64_t(n) : 0); }
    long next(long n) { return long(below(n > 0 ? uint64_t(n) : 0)); }
    unsigned long next(unsigned long n) { return (unsigned long)below(n); }
    unsigned long long next(unsigned long long n) { return below(n); }
    int next(int from, int to) { return int(next((long long)from, (long long)to)); }
    long next(long from, long to) { return long(next((long long)from, (long long)to)); }
    long long next(long long from, long long to) {
        if (from > to) below(0);
        uint64_t size = uint64_t(to) - uint64_t(from) + 1;
        return (long long)(uint64_t(from) + (size ? below(size) : bits()));
    }
    double next() { return double(bits() >> 11) / 9007199254740992.0; }
    double next(double n) { return n * next(); }
    double next(double from, double to) { return from + (to - from) * next(); }
    // The largest of `type` draws, or for a negative type the smallest.
    template <typename T>
    T wnext(T n, int type) {
        T drawn = next(n);
        for (int i = 0; i < std::abs(type); i++) {
            T other = next(n);
            drawn = type > 0 ? std::max(drawn, other) : std::min(drawn, other);
        }
        return drawn;
    }
    template <typename T>
    T wnext(T from, T to, int type) { return from + wnext(T(to - from + 1), type); }
    template <typename Container>
    typename Container::value_type any(const Container &values) {
        auto at = values.begin();
        std::advance(at, (long long)below(values.size()));
        return *at;
    }
    template <typename T>
    std::vector<T> perm(T size, T first) {
        std::vector<T> numbers;
        for (T i = 0; i < size; i++) {
            numbers.push_back(first + i);
            std::swap(numbers.back(), numbers[size_t(below(uint64_t(i) + 1))]);
        }
        return numbers;
    }
    template <typename T>
    std::vector<T> perm(T size) { return perm(size, T(0)); }
};
inline int random_t::version = 1;
inline random_t rnd;

template <typename Iterator>
inline void shuffle(Iterator first, Iterator last) {
    for (auto i = first; i != last; ++i) std::iter_swap(i, first + rnd.next((long long)(i - first) + 1));
}

// --- streams ---------------------------------------------------------------------------------------------------------

[[noreturn]] inline void quit(TResult result, const std::string &message = "");

class InStream {
    int fd = -1;
    size_t at = 0, size = 0;
    char buffer[1 << 16];
    bool over = false;

    bool fill() {  // takes what is there, and waits only where nothing is
        while (!over && at == size) {
            ssize_t got = fd < 0 ? 0 : ::read(fd, buffer, sizeof buffer);
            if (got < 0 && errno == EINTR) continue;
            over = got <= 0;
            at = 0;
            size = over ? 0 : size_t(got);
        }
        return at < size;
    }
    int peek() { return fill() ? (unsigned char)buffer[at] : EOF; }
    int take() { return fill() ? (unsigned char)buffer[at++] : EOF; }

    template <typename T>
    static std::string spelled(T value) {
        std::ostringstream out;
        out << std::setprecision(12) << value;
        return out.str();
    }
    template <typename T>
    T within(T value, T least, T most, const std::string &name, const char *kind) {
        if (!(least <= value && value <= most))
            quit(_wa, std::string(kind) + (name.empty() ? " parameter" : " parameter [name=" + name + "]") + " equals to " +
                          spelled(value) + ", violates the range [" + spelled(least) + ", " + spelled(most) + "]");
        return value;
    }
    template <typename Item>
    auto several(int count, int base, Item item) -> std::vector<decltype(item(std::string()))> {
        std::vector<decltype(item(std::string()))> all;
        for (int i = 0; i < count; i++) {
            if (strict && i) readSpace();
            all.push_back(item("[" + vtos(i + base) + "]"));
        }
        return all;
    }
    std::string fitting(const std::string &text, const std::string &form, const std::string &name, const char *kind) {
        if (!pattern(form).matches(text))
            quit(_wa, std::string(kind) + (name.empty() ? " element" : " parameter [name=" + name + "]") + " equals to \"" +
                          compress(text) + "\", doesn't correspond to pattern \"" + compress(form) + "\"");
        return text;
    }
    long long whole(const std::string &word, const char *kind) {
        bool minus = word.size() > 1 && word[0] == '-';
        size_t first = minus ? 1 : 0;
        bool right = word.size() - first >= 1 && word.size() - first <= 19;
        for (size_t i = first; right && i < word.size(); i++) right = word[i] >= '0' && word[i] <= '9';
        right = right && (word[first] != '0' || (word.size() == 1 && !minus));  // 007, -0 and +1 are no numbers
        if (right) {
            errno = 0;
            long long value = std::strtoll(word.c_str(), nullptr, 10);
            if (!errno) return value;
        }
        quit(_pe, std::string("Expected ") + kind + ", but \"" + compress(word) + "\" found");
    }
    unsigned long long natural(const std::string &word) {
        bool right = !word.empty() && word.size() <= 20 && (word[0] != '0' || word.size() == 1);
        for (char c : word) right = right && c >= '0' && c <= '9';
        if (right) {
            errno = 0;
            unsigned long long value = std::strtoull(word.c_str(), nullptr, 10);
            if (!errno) return value;
        }
        quit(_pe, "Expected unsigned integer, but \"" + compress(word) + "\" found");
    }

public:
    TMode mode = _input;
    std::string name;
    bool strict = false;

    InStream() {}
    // A stream over a text, that quits as `base` would.
    InStream(const InStream &base, const std::string &text)
        : over(true), mode(base.mode), name(base.name), strict(base.strict) {
        if (text.size() > sizeof buffer) plaudit::leave(FAIL_EXIT_CODE, "FAIL a stream over a text takes 65536 characters");
        size = text.size();
        std::memcpy(buffer, text.data(), size);
    }
    InStream(const InStream &) = delete;
    InStream &operator=(const InStream &) = delete;

    void init(const std::string &file, TMode mode_) {
        mode = mode_, name = file;
        fd = ::open(file.c_str(), O_RDONLY);
        if (fd < 0 && mode == _output) quit(_pe, "File not found: \"" + file + "\"");
        if (fd < 0) plaudit::leave(FAIL_EXIT_CODE, "FAIL File not found: \"" + file + "\"");
    }
    void init(int fd_, const std::string &name_, TMode mode_) { fd = fd_, name = name_, mode = mode_; }
    void close() {
        if (fd > 2) ::close(fd);
        fd = -1, over = true, at = size = 0;
    }

    [[noreturn]] void quit(TResult result, const char *message) { quit(result, std::string(message)); }
    [[noreturn]] void quit(TResult result, const std::string &message) {
        // What is wrong with the jury's own files is the jury's fault.
        if (mode != _output && result != _ok && plaudit::state().mode != _generator)
            ::quit(_fail, message + " (" + name + ")");
        ::quit(result, message);
    }
    [[noreturn]] void quitf(TResult result, const char *form, ...) PLAUDIT_PRINTF(3) {
        PLAUDIT_FORMATTED(text, form);
        quit(result, text);
    }
    void quitif(bool condition, TResult result, const char *form, ...) PLAUDIT_PRINTF(4) {
        if (!condition) return;
        PLAUDIT_FORMATTED(text, form);
        quit(result, text);
    }
    [[noreturn]] void quits(TResult result, std::string message) { quit(result, message); }

    // --- characters
    char curChar() { int c = peek(); return c == EOF ? char(EOFC) : char(c); }
    void skipChar() { take(); }
    char nextChar() { int c = take(); return c == EOF ? char(EOFC) : char(c); }
    char readChar() {
        int c = take();
        if (c == EOF) quit(_unexpected_eof, "Unexpected end of file - character expected");
        return char(c);
    }
    char readChar(char expected) {
        char found = readChar();
        if (found != expected)
            quit(_pe, std::string("Unexpected character '") + found + "', but '" + expected + "' expected");
        return found;
    }
    char readSpace() { return readChar(SPACE); }
    void unreadChar(char c) {
        if (at == 0) plaudit::leave(FAIL_EXIT_CODE, "FAIL unreadChar: nothing was read");
        buffer[--at] = c;
    }
    bool eof() { return peek() == EOF; }
    bool eoln() {
        int c = peek();
        return c == EOF || c == LF || c == CR;
    }
    void skipBlanks() {
        while (!eof() && isBlanks(char(peek()))) take();
    }
    bool seekEof() {
        skipBlanks();
        return eof();
    }
    bool seekEoln() {
        while (peek() == SPACE || peek() == TAB) take();
        return eoln();
    }
    void nextLine() { readLine(); }
    void readEoln() {
        int c = take();
        if (c == CR) c = take();
        if (c != LF) quit(_pe, "Expected EOLN");
    }
    void readEof() {
        if (!eof()) quit(_pe, "Expected EOF");
    }

    // --- words
    void readWordTo(std::string &word) {
        if (!strict) skipBlanks();
        if (eof()) quit(_unexpected_eof, "Unexpected end of file - token expected");
        if (isBlanks(char(peek()))) quit(_pe, "Unexpected white-space - token expected");
        word.clear();
        while (!eof() && !isBlanks(char(peek()))) word += char(take());
    }
    std::string readWord() {
        std::string word;
        readWordTo(word);
        return word;
    }
    std::string readWord(const std::string &form, const std::string &variable = "") {
        return fitting(readWord(), form, variable, "Token");
    }
    std::string readWord(const pattern &form, const std::string &variable = "") { return readWord(form.src(), variable); }
    void readWordTo(std::string &word, const std::string &form, const std::string &variable = "") { word = readWord(form, variable); }
    std::vector<std::string> readWords(int count, const std::string &form = ".*", const std::string &variable = "", int base = 1) {
        return several(count, base, [&](const std::string &index) {
            return form == ".*" ? readWord() : readWord(form, variable.empty() ? "" : variable + index);
        });
    }
    std::string readToken() { return readWord(); }
    std::string readToken(const std::string &form, const std::string &variable = "") { return readWord(form, variable); }
    std::string readToken(const pattern &form, const std::string &variable = "") { return readWord(form, variable); }
    void readTokenTo(std::string &word) { readWordTo(word); }
    void readTokenTo(std::string &word, const std::string &form, const std::string &variable = "") { word = readWord(form, variable); }
    std::vector<std::string> readTokens(int count, const std::string &form = ".*", const std::string &variable = "", int base = 1) {
        return readWords(count, form, variable, base);
    }

    // --- lines
    void readStringTo(std::string &line) {
        if (eof()) quit(_unexpected_eof, "Unexpected end of file - line expected");
        line.clear();
        for (int c = take(); c != EOF && c != LF; c = take()) line += char(c);
        if (!line.empty() && line[line.size() - 1] == CR) line.resize(line.size() - 1);
    }
    std::string readString() {
        std::string line;
        readStringTo(line);
        return line;
    }
    std::string readString(const std::string &form, const std::string &variable = "") {
        return fitting(readString(), form, variable, "Line");
    }
    std::string readString(const pattern &form, const std::string &variable = "") { return readString(form.src(), variable); }
    void readStringTo(std::string &line, const std::string &form, const std::string &variable = "") { line = readString(form, variable); }
    std::vector<std::string> readStrings(int count, const std::string &form = "", const std::string &variable = "", int base = 1) {
        std::vector<std::string> lines;
        for (int i = 0; i < count; i++)
            lines.push_back(form.empty() ? readString() : readString(form, variable.empty() ? "" : variable + "[" + vtos(i + base) + "]"));
        return lines;
    }
    std::string readLine() { return readString(); }
    std::string readLine(const std::string &form, const std::string &variable = "") { return readString(form, variable); }
    std::string readLine(const pattern &form, const std::string &variable = "") { return readString(form, variable); }
    void readLineTo(std::string &line) { readStringTo(line); }
    void readLineTo(std::string &line, const std::string &form, const std::string &variable = "") { line = readString(form, variable); }
    std::vector<std::string> readLines(int count, const std::string &form = "", const std::string &variable = "", int base = 1) {
        return readStrings(count, form, variable, base);
    }

    // --- whole numbers
    int readInt() {
        std::string word = readWord();
        long long value = whole(word, "int32");
        if (value < INT_MIN || value > INT_MAX) quit(_pe, "Expected int32, but \"" + compress(word) + "\" found");
        return int(value);
    }
    int readInt(int least, int most, const std::string &variable = "") {
        return within(readInt(), least, most, variable, "Integer");
    }
    int readInteger() { return readInt(); }
    int readInteger(int least, int most, const std::string &variable = "") { return readInt(least, most, variable); }
    std::vector<int> readInts(int count, int least = INT_MIN, int most = INT_MAX, const std::string &variable = "", int base = 1) {
        return several(count, base, [&](const std::string &index) {
            return readInt(least, most, variable.empty() ? "" : variable + index);
        });
    }
    std::vector<int> readIntegers(int count, int least = INT_MIN, int most = INT_MAX, const std::string &variable = "", int base = 1) {
        return readInts(count, least, most, variable, base);
    }
    long long readLong() { return whole(readWord(), "int64"); }
    long long readLong(long long least, long long most, const std::string &variable = "") {
        return within(readLong(), least, most, variable, "Integer");
    }
    long long readLongLong() { return readLong(); }
    long long readLongLong(long long least, long long most, const std::string &variable = "") { return readLong(least, most, variable); }
    std::vector<long long> readLongs(int count, long long least = LLONG_MIN, long long most = LLONG_MAX, const std::string &variable = "", int base = 1) {
        return several(count, base, [&](const std::string &index) {
            return readLong(least, most, variable.empty() ? "" : variable + index);
        });
    }
    std::vector<long long> readLongLongs(int count, long long least = LLONG_MIN, long long most = LLONG_MAX, const std::string &variable = "", int base = 1) {
        return readLongs(count, least, most, variable, base);
    }
    unsigned long long readUnsignedLong() { return natural(readWord()); }
    unsigned long long readUnsignedLong(unsigned long long least, unsigned long long most, const std::string &variable = "") {
        return within(readUnsignedLong(), least, most, variable, "Unsigned integer");
    }
    std::vector<unsigned long long> readUnsignedLongs(int count, unsigned long long least = 0, unsigned long long most = ULLONG_MAX,
                                                      const std::string &variable = "", int base = 1) {
        return several(count, base, [&](const std::string &index) {
            return readUnsignedLong(least, most, variable.empty() ? "" : variable + index);
        });
    }

    // --- numbers with a point
    double toDouble(const std::string &word) {
        int digits = 0, points = 0, exponents = 0;
        bool right = !word.empty() && word.size() <= 400;
        for (char c : word) {
            if (c >= '0' && c <= '9') digits++;
            else if (c == '.') points++;
            else if (c == 'e' || c == 'E') exponents++;
            else if (c != '-' && c != '+') right = false;
        }
        if (right && digits && points <= 1 && exponents <= 1) {
            char *end = nullptr;
            double value = std::strtod(word.c_str(), &end);
            if (end && !*end && std::isfinite(value)) return value;
        }
        quit(_pe, "Expected double, but \"" + compress(word) + "\" found");
    }
    double readReal() { return toDouble(readWord()); }
    double readReal(double least, double most, const std::string &variable = "") {
        return within(readReal(), least, most, variable, "Double");
    }
    double readDouble() { return readReal(); }
    double readDouble(double least, double most, const std::string &variable = "") { return readReal(least, most, variable); }
    std::vector<double> readReals(int count, double least = -std::numeric_limits<double>::max(),
                                  double most = std::numeric_limits<double>::max(), const std::string &variable = "", int base = 1) {
        return several(count, base, [&](const std::string &index) {
            return readReal(least, most, variable.empty() ? "" : variable + index);
        });
    }
    std::vector<double> readDoubles(int count, double least = -std::numeric_limits<double>::max(),
                                    double most = std::numeric_limits<double>::max(), const std::string &variable = "", int base = 1) {
        return readReals(count, least, most, variable, base);
    }
    double readStrictReal(double least, double most, int fewest, int largest, const std::string &variable = "") {
        std::string word = readWord();
        size_t point = word.find('.'), after = point == std::string::npos ? 0 : word.size() - point - 1;
        bool right = word.find_first_not_of("-.0123456789") == std::string::npos && after >= size_t(fewest) && after <= size_t(largest);
        if (!right)
            quit(_pe, "Expected strict double with " + vtos(fewest) + " to " + vtos(largest) + " digits after the point, but \"" +
                          compress(word) + "\" found");
        return within(toDouble(word), least, most, variable, "Strict double");
    }
    double readStrictDouble(double least, double most, int fewest, int largest, const std::string &variable = "") {
        return readStrictReal(least, most, fewest, largest, variable);
    }
    long long toLongLong(const std::string &word) { return whole(word, "int64"); }
};

inline InStream inf, ouf, ans;
inline std::fstream tout;

inline double stringToDouble(InStream &in, const char *word) { return in.toDouble(word); }
inline double stringToDouble(InStream &in, const std::string &word) { return in.toDouble(word); }
inline long long stringToLongLong(InStream &in, const char *word) { return in.toLongLong(word); }
inline long long stringToLongLong(InStream &in, const std::string &word) { return in.toLongLong(word); }

// --- verdicts --------------------------------------------------------------------------------------------------------

[[noreturn]] inline void plaudit_points(double points, const std::string &message) {
    if (!(points >= 0 && points <= 1))
        plaudit::leave(FAIL_EXIT_CODE, "FAIL quitp: " + vtos(points) + " points; a score lies in [0, 1]");
    std::ostringstream line;
    line << std::setprecision(10) << "points " << points;
    plaudit::leave(POINTS_EXIT_CODE, line.str() + (message.empty() ? "" : " " + message));
}

[[noreturn]] inline void quit(TResult result, const std::string &message) {
    std::string where = plaudit::state().test_case >= 0 ? "test case " + vtos(plaudit::state().test_case) + ": " : "";
    std::string text = where + message;
    bool judging = plaudit::state().mode == _checker;
    if (judging && (result == _ok || int(result) >= int(_partially)) && !ouf.seekEof())
        quit(_pe, "Extra information in the output file");
    if (int(result) >= int(_partially)) plaudit_points(std::min(1.0, (int(result) - int(_partially)) / 100.0), text);
    switch (result) {
        case _ok: tout.flush(); plaudit::leave(OK_EXIT_CODE, "ok " + text);
        case _wa: plaudit::leave(WA_EXIT_CODE, "wrong answer " + text);
        case _pe: plaudit::leave(PE_EXIT_CODE, "wrong output format " + text);
        case _dirt: plaudit::leave(DIRT_EXIT_CODE, "wrong output format " + text);
        case _unexpected_eof: plaudit::leave(UNEXPECTED_EOF_EXIT_CODE, "unexpected eof " + text);
        case _points: plaudit_points(std::strtod(message.c_str(), nullptr), "");
        default: plaudit::leave(FAIL_EXIT_CODE, "FAIL " + text);
    }
}

[[noreturn]] inline void quitf(TResult result, const char *form, ...) PLAUDIT_PRINTF(2);
[[noreturn]] inline void quitf(TResult result, const char *form, ...) {
    PLAUDIT_FORMATTED(text, form);
    quit(result, text);
}
inline void quitif(bool condition, TResult result, const char *form, ...) PLAUDIT_PRINTF(3);
inline void quitif(bool condition, TResult result, const char *form, ...) {
    if (!condition) return;
    PLAUDIT_FORMATTED(text, form);
    quit(result, text);
}
[[noreturn]] inline void quitp(double points, const std::string &message = "") { plaudit_points(points, message); }
[[noreturn]] inline void quitp(double points, const char *form, ...) PLAUDIT_PRINTF(2);
[[noreturn]] inline void quitp(double points, const char *form, ...) {
    PLAUDIT_FORMATTED(text, form);
    plaudit_points(points, text);
}
[[noreturn]] inline void quitpi(const std::string &points, const std::string &message = "") {
    plaudit_points(std::strtod(points.c_str(), nullptr), message);
}

#define ensure(condition)                                                                     \
    do {                                                                                      \
        if (!(condition)) quit(_fail, std::string("Condition failed: \"") + #condition + "\""); \
    } while (0)
#define ensure_ext ensure

inline void ensuref(bool condition, const char *form, ...) PLAUDIT_PRINTF(2);
inline void ensuref(bool condition, const char *form, ...) {
    if (condition) return;
    PLAUDIT_FORMATTED(text, form);
    quit(_fail, text);
}

template <typename T>
[[noreturn]] inline void expectedButFound(TResult result, const T &expected, const T &found) {
    std::ostringstream out;
    out << std::setprecision(12) << "expected '" << expected << "', found '" << found << "'";
    quit(result, out.str());
}
template <typename T>
[[noreturn]] inline void expectedButFound(TResult result, const T &expected, const T &found, const char *form, ...) {
    PLAUDIT_FORMATTED(text, form);
    std::ostringstream out;
    out << std::setprecision(12) << text << ": expected '" << expected << "', found '" << found << "'";
    quit(result, out.str());
}

// From here on a checker may end without a verdict of this file's: its exit code alone is what it says.
inline void disableFinalizeGuard() { plaudit::state().ended = true; }

inline void setName(const char *form, ...) PLAUDIT_PRINTF(1);
inline void setName(const char *form, ...) {
    PLAUDIT_FORMATTED(text, form);
    plaudit::state().checker_name = text;
}
inline void setTestCase(int number) { plaudit::state().test_case = number; }
inline void unsetTestCase() { plaudit::state().test_case = -1; }

// --- how a program begins --------------------------------------------------------------------------------------------

inline void registerTestlibCmd(int argc, char *argv[]) {
    plaudit::state().mode = _checker;
    if (argc < 4) plaudit::leave(FAIL_EXIT_CODE, "FAIL a checker takes: input-file output-file answer-file [report-file]");
    if (argc > 4) plaudit::state().report = argv[4];
    inf.init(argv[1], _input);
    ans.init(argv[3], _answer);
    ouf.init(argv[2], _output);
}
inline void registerTestlib(int argc, ...) {
    if (argc < 3) plaudit::leave(FAIL_EXIT_CODE, "FAIL registerTestlib takes: input-file output-file answer-file");
    va_list files;
    va_start(files, argc);
    std::vector<std::string> names;
    for (int i = 0; i < 3; i++) names.push_back(va_arg(files, char *));
    va_end(files);
    plaudit::state().mode = _checker;
    inf.init(names[0], _input);
    ans.init(names[2], _answer);
    ouf.init(names[1], _output);
}
inline void registerInteraction(int argc, char *argv[]) {
    plaudit::state().mode = _interactor;
    if (argc < 3) plaudit::leave(FAIL_EXIT_CODE, "FAIL an interactor takes: input-file output-file [answer-file [report-file]]");
    if (argc > 4) plaudit::state().report = argv[4];
    inf.init(argv[1], _input);
    tout.open(argv[2], std::ios_base::out);
    if (tout.fail()) plaudit::leave(FAIL_EXIT_CODE, std::string("FAIL cannot write to ") + argv[2]);
    ouf.init(0, "stdin", _output);
    if (argc > 3) ans.init(argv[3], _answer);
}
inline void registerValidation() {
    plaudit::state().mode = _validator;
    inf.init(0, "stdin", _input);
    inf.strict = true;
}
inline void registerValidation(int, char *[]) { registerValidation(); }
inline void registerGen(int argc, char *argv[], int version = 1) {
    plaudit::state().mode = _generator;
    random_t::version = version;
    rnd.setSeed(argc, argv);
}

// --- what generators print -------------------------------------------------------------------------------------------

template <typename T>
inline auto plaudit_print(const T &value, int) -> decltype(value.begin(), value.end(), void()) {
    std::cout << join(value);
}
template <typename T>
inline void plaudit_print(const T &value, long) { std::cout << value; }
inline void plaudit_print(const std::string &value, int) { std::cout << value; }
inline void plaudit_print(const char *value, int) { std::cout << value; }
inline void println() { std::cout << "\n"; }
template <typename First, typename... Rest>
inline void println(const First &first, const Rest &...rest) {
    plaudit_print(first, 0);
    ((std::cout << ' ', plaudit_print(rest, 0)), ...);
    std::cout << "\n";
}

#endif
