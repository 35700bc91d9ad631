// What a handler is told about its call (contract section 7.4).

using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Reflection;
using System.Text.Json;

namespace Dunlin
{
    /// <summary>Values by the names of the properties that show them.</summary>
    sealed class Members : Dictionary<string, object>
    {
        public Members() : base(StringComparer.Ordinal)
        {
        }
    }

    /// <summary>
    /// An object that implements an interface of the user's. The vendor's library comes with the user's package, in whichever
    /// version: what it declares is answered by name, and what we do not know of has its type's default.
    /// </summary>
    public class Facade : DispatchProxy
    {
        static readonly MethodInfo Create = typeof(DispatchProxy).GetMethod("Create");
        static readonly ConcurrentDictionary<Type, MethodInfo> Creators = new ConcurrentDictionary<Type, MethodInfo>();

        Members members;
        Logger logger;

        /// <summary>Values behind an interface.</summary>
        internal static object Of(Type type, Members members)
        {
            Facade facade = Make(type);
            facade.members = members;
            return facade;
        }

        static object Of(Type type, Logger logger)
        {
            Facade facade = Make(type);
            facade.members = new Members();
            facade.logger = logger;
            return facade;
        }

        static Facade Make(Type type)
        {
            MethodInfo creator = Creators.GetOrAdd(type, wanted => Create.MakeGenericMethod(wanted, typeof(Facade)));
            return (Facade)creator.Invoke(null, BindingFlags.DoNotWrapExceptions, null, null, null);
        }

        protected override object Invoke(MethodInfo method, object[] arguments)
        {
            string name = method.Name;
            if (logger != null)
            {
                switch (name)
                {
                    case "Log":
                        logger.Log(arguments);
                        return null;
                    case "IsEnabled":
                        return Logger.IsEnabled(Convert.ToInt32(arguments[0]));
                    case "BeginScope":
                        return new Scope();
                    case "get_EnabledLogLevel":
                        return Shown(Logger.Least, method.ReturnType);
                    case "set_EnabledLogLevel":
                        Logger.Least = Convert.ToInt32(arguments[0]);
                        return null;
                }
            }
            if (name.StartsWith("get_", StringComparison.Ordinal))
            {
                object value;
                members.TryGetValue(name.Substring(4), out value);
                return Shown(value, method.ReturnType);
            }
            if (name.StartsWith("set_", StringComparison.Ordinal))
            {
                members[name.Substring(4)] = arguments[0];
                return null;
            }
            return Default(method.ReturnType);
        }

        /// <summary>The value as the interface declares it.</summary>
        static object Shown(object value, Type type)
        {
            if (value is Members && type.IsInterface)
            {
                return Of(type, (Members)value);
            }
            if (value is Logger && type.IsInterface)
            {
                return Of(type, (Logger)value);
            }
            if (value == null || type.IsInstanceOfType(value))
            {
                return value ?? Default(type);
            }
            if (type.IsEnum)
            {
                return Enum.ToObject(type, value);
            }
            Type plain = Nullable.GetUnderlyingType(type) ?? type;
            if (value is TimeSpan && plain.IsPrimitive)
            {
                value = ((TimeSpan)value).TotalMilliseconds;
            }
            return value is IConvertible && typeof(IConvertible).IsAssignableFrom(plain)
                ? Convert.ChangeType(value, plain)
                : Default(type);
        }

        static object Default(Type type)
        {
            return type.IsValueType && type != typeof(void) ? Activator.CreateInstance(type) : null;
        }

        sealed class Scope : IDisposable
        {
            public void Dispose()
            {
            }
        }
    }

    /// <summary>The values of a call's context.</summary>
    static class CallContext
    {
        public static Members Of(JsonElement load, JsonElement call)
        {
            JsonElement about, service, given;
            Json.Has(load, "function", out about);
            Json.Has(load, "service", out service);
            Json.Has(call, "credentials", out given);
            string requestId = Json.Text(call, "requestId");
            JsonElement environment;
            Json.Has(load, "env", out environment);
            int initialization;
            int.TryParse(Json.Text(environment, "FC_INITIALIZATION_TIMEOUT"), out initialization);
            Members function = new Members
            {
                { "FunctionName", Json.Text(about, "name") },
                { "FunctionHandler", Json.Text(about, "handler") },
                { "FunctionInitializer", Json.Text(load, "initializer") },
                { "MemoryLimitInMB", Json.Number(about, "memory") },
                { "FunctionTimeout", TimeSpan.FromSeconds(Json.Number(about, "timeout")) },
                { "InitializationTimeout", TimeSpan.FromSeconds(initialization) }
            };
            Members meta = new Members
            {
                { "Name", Json.Text(service, "name") },
                { "LogProject", Json.Text(service, "logProject") },
                { "LogStore", Json.Text(service, "logStore") },
                { "Qualifier", Json.Text(service, "qualifier") },
                { "VersionId", Json.Text(service, "versionId") }
            };
            Members credentials = new Members
            {
                { "AccessKeyId", Json.Text(given, "accessKeyId") },
                { "AccessKeySecret", Json.Text(given, "accessKeySecret") },
                { "SecurityToken", Json.Text(given, "securityToken") }
            };
            return new Members
            {
                { "RequestId", requestId },
                { "FunctionParam", function },
                { "Function", function },
                { "ServiceMeta", meta },
                { "Service", meta },
                { "Credentials", credentials },
                { "AccountId", Json.Text(load, "accountId") },
                { "Region", Json.Text(load, "region") },
                { "RetryCount", Json.Number(call, "retryCount") },
                { "Logger", new Logger(requestId) }
            };
        }
    }
}
