-- The result of a run as one line of JSON. Scripts of suites load this by `dofile(os.getenv("WRK_REPORT"))`; the global
-- `wrong` of each thread, a number, is added up.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function done(summary)
  local errors, wrong = summary.errors, 0
  for _, thread in ipairs(threads) do
    wrong = wrong + (thread:get("wrong") or 0)
  end
  io.write(string.format('{"requests": %d, "errors": %d, "lost": %d, "wrong": %d}\n', summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, wrong))
end
