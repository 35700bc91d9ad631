package dunlin.runtime;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.Credentials;
import com.aliyun.fc.runtime.FunctionComputeLogger;
import com.aliyun.fc.runtime.FunctionParam;
import com.aliyun.fc.runtime.OpenTracing;
import com.aliyun.fc.runtime.Service;
import java.util.Collections;
import java.util.Map;

/** What a handler is told about its call (contract section 7.3). */
final class CallContext implements Context {
    private final Map<String, Object> load;
    private final Map<String, Object> call;
    private final CallLogger logger;

    CallContext(Map<String, Object> load, Map<String, Object> call, CallLogger.Threshold threshold) {
        this.load = load;
        this.call = call;
        this.logger = new CallLogger(getRequestId(), threshold);
    }

    @Override
    public String getRequestId() {
        return WireJson.text(call, "requestId");
    }

    @Override
    public Credentials getExecutionCredentials() {
        Map<String, Object> given = WireJson.member(call, "credentials");
        return new Credentials() {
            @Override
            public String getAccessKeyId() {
                return WireJson.text(given, "accessKeyId");
            }

            @Override
            public String getAccessKeySecret() {
                return WireJson.text(given, "accessKeySecret");
            }

            @Override
            public String getSecurityToken() {
                return WireJson.text(given, "securityToken");
            }
        };
    }

    @Override
    public FunctionParam getFunctionParam() {
        Map<String, Object> function = WireJson.member(load, "function");
        return new FunctionParam() {
            @Override
            public String getFunctionName() {
                return WireJson.text(function, "name");
            }

            @Override
            public String getFunctionHandler() {
                return WireJson.text(function, "handler");
            }

            @Override
            public String getFunctionInitializer() {
                return WireJson.text(load, "initializer");
            }

            @Override
            public int getExecTimeLimitInMillis() {
                return WireJson.number(function, "timeout") * 1000;
            }

            @Override
            public int getMemoryLimitInMB() {
                return WireJson.number(function, "memory");
            }
        };
    }

    @Override
    public Service getService() {
        Map<String, Object> service = WireJson.member(load, "service");
        return new Service() {
            @Override
            public String getName() {
                return WireJson.text(service, "name");
            }

            @Override
            public String getLogProject() {
                return WireJson.text(service, "logProject");
            }

            @Override
            public String getLogStore() {
                return WireJson.text(service, "logStore");
            }

            @Override
            public String getQualifier() {
                return WireJson.text(service, "qualifier");
            }

            @Override
            public String getVersionId() {
                return WireJson.text(service, "versionId");
            }
        };
    }

    @Override
    public FunctionComputeLogger getLogger() {
        return logger;
    }

    @Override
    public OpenTracing getTracing() {
        return new OpenTracing() {
            @Override
            public String getSpanContext() {
                return "";
            }

            @Override
            public Map<String, String> getSpanBaggages() {
                return Collections.emptyMap();
            }

            @Override
            public String getJaegerEndpoint() {
                return "";
            }
        };
    }

    @Override
    public int getRetryCount() {
        return WireJson.number(call, "retryCount");
    }
}
