-- ARGV:
--   1 run id of the server; 'ask' if the caller does not know it; '-' for no quarantine,
--   2 start time of the server, in microseconds of its own clock.
-- This file parses the state into a table, and defines the steps that change it.
local NEVER = 9007199254740991
local S = {used = 0, limit = 0, lease = 0, last = 0, due = 0, ['until'] = 0, sole = '', run = '-', blind = 0}
if state then
  local last, till, used, due, crashed, drops
  S.identity, S.run, last, till, used, due, crashed, drops, S.sole = string.match(state, '^([^;]*);([^;]*);(%d+) (%d+) (%d+) (%d+) (%d) (%d) (.*)$')
  local protocol, kind, limit, lease = string.match(S.identity or state, '^(%d+) (%a+) (%d+) (%d+)')
  if protocol ~= '1' then return redis.error_reply('INCOMPATIBLE the protocol version of this lock is ' .. (protocol or 'none') .. ', not 1') end
  S.kind, S.limit, S.lease = kind, tonumber(limit), tonumber(lease)
  S.last, S['until'], S.used, S.due, S.crashed, S.drops = tonumber(last), tonumber(till), tonumber(used), tonumber(due), crashed == '1', drops == '1'
end
local fence = not state and redis.call('GET', KEYS[6])
if fence then S.last = tonumber(string.match(fence, '^%d+')) or 0 end
-- If the server's clock was set back, time does not advance here.
now = math.max(now, S.last)

-- A record: what an id requested, and what it was granted.
local function read(id, text)
  local r = {id = id}
  r.number, r.turn, r.token, r.offered, r.crashed, r.cost, r.mode, r.drops, r.patience, r.claim, r.delay, r.inbox, r.owner =
    string.match(text, '^(%d+) (%d+) (%d+) (%d) (%d) (%d+) (%a) (%d) (%d+) (%d+) (%d+) (%S+) (.*)$')
  r.cost, r.turn = tonumber(r.cost), tonumber(r.turn)
  return r.cost and r
end

local function write(r)
  return string.format('%.0f %.0f %.0f %d %d %d %s %s %s %s %s %s %s', r.number, r.turn, r.token, r.offered, r.crashed, r.cost, r.mode, r.drops, r.patience, r.claim, r.delay, r.inbox, r.owner)
end

-- A holder of all shares is stored in the state, with its expiry. Other holders each have an entry
-- in `hold` and in `who`.
local function sole()
  local id, expiry, text = string.match(S.sole, '^(%x+) (%d+) (.*)$')
  local r = id and read(id, text)
  if r then r.expiry = tonumber(expiry) end
  return r
end

local function find(id)
  if string.sub(S.sole, 1, #id) == id then return sole() end
  local text = redis.call('HGET', KEYS[5], id)
  return text and read(id, text) or nil
end

-- Adds a holder, or renews it.
local function hold(r, expiry)
  if r.cost == S.limit then
    S.sole = string.format('%s %.0f %s', r.id, expiry, write(r))
  else
    redis.call('HSET', KEYS[5], r.id, write(r))
    if redis.call('ZADD', KEYS[4], expiry, r.id) == 1 then
      redis.call('EXPIRE', KEYS[4], TTL)
      redis.call('EXPIRE', KEYS[5], TTL)
    end
  end
  if expiry < S.due then S.due = expiry end
  S.changed = true
end

-- Keeps a queue entry for the waiter's patience.
local function keep_waiting(r)
  local deadline = now + r.patience
  redis.call('ZADD', KEYS[3], deadline, r.id)
  if deadline < S.due then S.due, S.changed = deadline, true end
end

-- Removes a holder. Its record as a waiter stays, if it has one.
local function end_hold(r)
  if r.cost == S.limit then S.sole = '' else redis.call('ZREM', KEYS[4], r.id) end
  S.used, S.changed = S.used - r.cost, true
end

local function listens(r) return string.byte(r.inbox) ~= 45 end

-- Takes back an unclaimed offer. The waiter keeps its number, and is first again when it is polled.
local function take_back(r)
  end_hold(r)
  S.crashed = S.crashed or r.crashed == '1'
  if redis.call('ZSCORE', KEYS[3], r.id) then
    r.turn, r.token, r.offered, r.crashed = 0, 0, 0, 0
    redis.call('HSET', KEYS[5], r.id, write(r))
  else
    redis.call('HDEL', KEYS[5], r.id)
  end
end

-- Ends a hold that was not released. Its holder and the next holder are informed.
local function expire(r)
  end_hold(r)
  redis.call('HDEL', KEYS[5], r.id)
  redis.call('ZREM', KEYS[3], r.id)
  if r.mode == 'x' then S.crashed = true end
  if r.delay ~= '0' then S['until'] = math.max(S['until'], now + r.delay) end
  if listens(r) then redis.pcall('PUBLISH', r.inbox, 'lost ' .. r.id) end
end

-- A key was deleted by hand: counts the shares that are still on record.
local function recount()
  local r = sole()
  S.used, S.changed = r and r.cost or 0, true
  if redis.call('EXISTS', KEYS[4]) == 0 then
    for _, id in ipairs(redis.call('HKEYS', KEYS[5])) do
      local other = find(id)
      if other and other.turn > 0 then redis.call('ZADD', KEYS[4], now + S.lease, id) end
    end
  end
  for _, id in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    local other = find(id)
    if other then S.used = S.used + other.cost else redis.call('ZREM', KEYS[4], id) end
  end
end

-- Ends what is overdue. `due` is never later than the first deadline.
local function reap()
  if S.sole == '' and S.used > 0 and redis.call('EXISTS', KEYS[4]) == 0 then recount() end
  if now < S.due then return false end
  local function over(r)
    if r.offered == '1' then take_back(r) else expire(r) end
  end
  local r = sole()
  if r and r.expiry <= now then
    over(r)
    r = nil
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now)) do
    local other = find(id)
    if other then over(other) else recount() end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZREM', KEYS[2], id)
    if not redis.call('ZSCORE', KEYS[4], id) then redis.call('HDEL', KEYS[5], id) end
  end
  S.due, S.changed = r and r.expiry or NEVER, true
  for key = 3, 4 do
    local first = redis.call('ZRANGE', KEYS[key], 0, 0, 'WITHSCORES')[2]
    if first then S.due = math.min(S.due, tonumber(first)) end
  end
  for key = 2, 5 do redis.call('EXPIRE', KEYS[key], TTL) end
  return true
end

-- Returns since when this server has forgotten nothing, as far as is known: it was not flushed, and
-- no other server granted locks whose records it may lack. The witness is '<time> <run id>'. The
-- second result is false if it is recorded.
local function unforgotten_since(run)
  local since, owner = string.match(redis.call('GET', KEYS[7]) or '', '^(%d+) ?(.*)$')
  if owner == run then return tonumber(since), false end
  local recent = since
  if not since then
    -- No lock of this namespace was used, or the record of that is gone. A server that once followed
    -- another one has a second replication id.
    local stats, links = redis.pcall('INFO', 'commandstats'), redis.pcall('INFO', 'replication')
    local flushed = type(stats) ~= 'string' or string.find(stats, 'cmdstat_flush%a+:calls=[1-9]')
    recent = flushed or type(links) ~= 'string' or string.find(links, 'master_replid2:0*[1-9a-f]')
  end
  return recent and now or 0, true
end

-- Returns the same, and records it.
local function unforgotten(run)
  local since, is_news = unforgotten_since(run)
  if is_news then redis.call('SET', KEYS[7], string.format('%.0f %s', since, run)) end
  return since
end

-- A key was deleted by hand, unless the last user left the lock free.
local is_torn = fence and not string.find(fence, 'idle', 1, true)

-- Returns the recorded holders. `last` limits those that share the lock; -1 is for all.
local function holders_up_to(last)
  local all = {sole()}
  for _, id in ipairs(redis.call('ZRANGE', KEYS[4], 0, last)) do all[#all + 1] = find(id) end
  return all
end

-- Checks which server this is. The lock was last used on another server, or before a restart or a
-- flush: then it grants nothing for one lease. Recorded holds may be outdated, so none counts until
-- its holder asserts it with its token. Returns `true` if this is another server.
local function check_server()
  local run, born = ARGV[1], tonumber(ARGV[2])
  if run == 'ask' then
    local info = redis.pcall('INFO', 'server')
    run = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
    if not run then
      S.blind = 1
      return
    end
    -- The uptime is in whole seconds, so the server may be younger by one second. It is negative if
    -- the server's clock was set back.
    local up = tonumber(string.match(info, 'uptime_in_seconds:(%-?%d+)')) or 0
    born = now - math.max(up - 1, 0) * 1000000
  end
  if run == '-' or run == S.run then return end
  local since = S.run ~= '-' and now or math.min(born, now)
  since = math.max(since, unforgotten(run))
  if S.run ~= '-' then
    for _, r in ipairs(holders_up_to(-1)) do take_back(r) end
  end
  S['until'] = math.max(S['until'], since + S.lease)
  S.run, S.changed = run, true
  return true
end

-- Grants the lock to a request. The caller of this script gets the grant in the reply. Another
-- process gets an offer in its inbox, and must claim it.
local function give(r, me)
  local turn = math.max(S.last + 1, now)
  local token, expiry = turn, now + S.lease
  if r.mode == 's' then token = tonumber(string.match(redis.call('GET', KEYS[6]) or '', '^%d+')) or turn end
  r.offered = 0
  if r.id ~= me then
    local message = string.format('offer %s %.0f %.0f %d', r.id, turn, token, S.crashed and 1 or 0)
    -- No process listens on this inbox: it died or is disconnected. Its waiter keeps its number.
    if listens(r) and redis.pcall('PUBLISH', r.inbox, message) == 0 then return end
    -- Not longer than the queue entry lasts. Otherwise each of many dead waiters would cost a
    -- window.
    local deadline = tonumber(redis.call('ZSCORE', KEYS[3], r.id)) or now + r.patience
    expiry, r.offered = math.min(now + r.claim, deadline), 1
  end
  r.turn, r.token, r.crashed = turn, token, S.crashed and 1 or 0
  S.last, S.crashed, S.used = turn, false, S.used + r.cost
  redis.call('SET', KEYS[6], token)
  hold(r, expiry)
end

local function grant(me)
  while S.used < S.limit do
    local id = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
    if not id then return end
    local r = find(id)
    if r and (S.used + r.cost > S.limit or now < S['until']) then return end
    redis.call('ZREM', KEYS[2], id)
    if r then give(r, me) end
  end
end

-- Ends holds that end with their connection, if no process listens on their inbox.
local function expire_disconnected()
  if not S.drops or S.used == 0 or redis.call('EXISTS', KEYS[2]) == 0 then return end
  for _, r in ipairs(holders_up_to(15)) do
    if r.drops == '1' and r.offered == '0' and listens(r) then
      local heard = redis.pcall('PUBSUB', 'NUMSUB', r.inbox)
      if heard[2] == 0 then expire(r) end
    end
  end
end

-- Returns for how many microseconds nothing is granted.
local function blocked_for() return math.max(S['until'] - now, 0) end

-- Returns in how many microseconds the lock may change without a request; 0 for never.
local function wake()
  local next = S['until'] - now
  if next <= 0 then
    local r = sole()
    local first = r and r.expiry or tonumber(redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2])
    next = first and math.max(first - now, 1) or 0
  end
  if S.drops and (next == 0 or next > 500000) then next = 500000 end
  return next
end

-- Returns a holder for waiters: that of all shares, or one of those that share the lock.
local function shown()
  if S.sole ~= '' then return S.sole end
  local id = S.used > 0 and redis.call('ZRANGE', KEYS[4], 0, 0)[1]
  local r = id and find(id)
  return r and string.format('%s 0 %s', id, write(r)) or ''
end

local function save()
  if not S.changed then return end
  redis.call('SET', KEYS[1], string.format('%s;%s;%.0f %.0f %d %.0f %d %d %s', S.identity, S.run, S.last, S['until'], S.used, S.due, S.crashed and 1 or 0, S.drops and 1 or 0, S.sole), 'EX', TTL)
end
