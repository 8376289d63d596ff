-- Posts the lines of a file in turn, and prints how it went as one JSON object: wrk -t1 -s post.lua URL -- FILE
local threads = {}
local bodies = {}
local at = 0
statuses = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  for line in io.lines(arguments[1]) do
    table.insert(bodies, line)
  end
end

function request()
  at = at % #bodies + 1
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[at])
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function done(summary, latency)
  local counts = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      table.insert(counts, string.format('"%d": %d', status, count))
    end
  end
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format('{"statuses": {%s}, "failed": %d, "seconds": %.3f, "median_ms": %.3f, "p99_ms": %.3f}',
    table.concat(counts, ", "), failed, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
