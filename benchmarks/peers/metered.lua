-- What a gateway in Lua does for a metered request: the key from a table, one script for all limits (first all are looked
-- at, then all are written), a record into the producer's buffer, which a timer empties. Libraries: lua-nginx-redis,
-- lua-nginx-kafka (lua-resty-redis and lua-resty-kafka, under the names that Debian gives them).
local cjson = require "cjson.safe"
local producer = require "nginx.kafka.producer"
local redis = require "nginx.redis"

local SCRIPT = [[
local now = redis.call('TIME')
local us = now[1] * 1000000 + now[2]
local step, burst, quota = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), us)
local used = tonumber(redis.call('GET', KEYS[2]) or 0)
if due + step - us > burst * step then return 0 end
if used + 1 > quota then return 0 end
redis.call('SET', KEYS[1], string.format('%d', due + step), 'PX', math.ceil(burst * step / 1000) + 1000)
redis.call('INCR', KEYS[2])
if used == 0 then redis.call('EXPIRE', KEYS[2], 2764800) end
return 1
]]

local _M = {}
local sha

local function ask(store, who)
    if not sha then
        sha = assert(store:script("load", SCRIPT))
    end
    return store:evalsha(
        sha, 2, "burst:" .. who.id, "monthly:" .. who.customer, who.step_us, who.burst, who.quota
    )
end

function _M.admit()
    local who = _M.keys[ngx.var.http_x_api_key]
    if not who then
        return ngx.exit(401)
    end
    local store = redis:new()
    store:set_timeout(1000)
    local connected, failure = store:connect("127.0.0.1", _M.redis_port)
    local allowed
    if connected then
        allowed, failure = ask(store, who)
    end
    if not allowed then
        ngx.log(ngx.ERR, "Redis: ", failure)
        return ngx.exit(503)
    end
    store:set_keepalive(60000, 128)
    if allowed ~= 1 then
        return ngx.exit(429)
    end
    ngx.ctx.who = who
end

function _M.record()
    local who = ngx.ctx.who
    if not who then
        return
    end
    local var = ngx.var
    local kafka = producer:new(
        { { host = "127.0.0.1", port = _M.kafka_port } },
        { producer_type = "async", api_version = 2, max_buffering = 200000 }
    )
    local taken, failure = kafka:send(_M.topic, who.customer, cjson.encode({
        specversion = "1.0",
        type = "usage.v1",
        id = var.request_id,
        time = ngx.now(),
        subject = who.subject,
        data = {
            customer = who.customer,
            key_id = who.id,
            method = var.request_method,
            path = var.uri,
            status = ngx.status,
            usage = { requests = 1 },
            duration = tonumber(var.request_time),
            bytes_in = tonumber(var.request_length),
            bytes_out = tonumber(var.bytes_sent),
        },
    }))
    if not taken then
        ngx.log(ngx.ERR, "Kafka: ", failure)
    end
end

return _M
